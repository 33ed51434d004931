"""`oscirc channel set | list | remove`: an image's movable pointers to versions."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, key_option, passphrase_file_option, token_file_option
from oscirc.output import print_json, print_table, say, warn


@click.group()
def channel() -> None:
    """Channels: movable pointers to versions."""


@channel.command("set")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("name", metavar="CHANNEL")
@key_option
@passphrase_file_option
@token_file_option
@json_option
def set_channel(
    reference: str, name: str, *, key: str, passphrase_file: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Point a channel at a released version.

    \b
    Example:
      oscirc channel set alice/debian@12.1 stable --key alice
    """
    from oscirc import composition
    from oscirc.publishing_text import say_change
    from oscirc_blockstore.errors import UsageError
    from oscirc_publisher import changing

    wanted = composition.parse_version_reference(reference)
    with composition.signatory(wanted, key, passphrase_file, token_file) as signatory:
        index = signatory.served_index(signatory.served_role(), wanted.image)
        withdrawn = index.version(wanted.version).yanked
        if withdrawn is not None and withdrawn.security:
            raise UsageError(
                f"{wanted.version} was withdrawn for security reasons: {withdrawn.why}",
                hint="point the channel at another version, or take the withdrawal back: oscirc restore",
            )
        if withdrawn is not None:
            warn(f"{wanted.version} was withdrawn: {withdrawn.why}")
        released = changing.set_channel(signatory, wanted.image, name, wanted.version)
    say_change(released, f"{wanted.publisher}/{wanted.image}#{name} is now {wanted.version}", as_json=as_json)


@channel.command("list")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE")
@json_option
def list_channels(reference: str, *, as_json: bool) -> None:
    """List an image's channels and what they point at, as its publisher signed it.

    \b
    Example:
      oscirc channel list alice/debian
    """
    from oscirc import composition
    from oscirc_remote.session import Session

    wanted = composition.parse_image_reference(reference)
    with Session(wanted.remote) as session:
        index = session.image_index(wanted.publisher, wanted.image)
    found = [(name, index.channel(name)) for name in sorted(index.channels)]
    if as_json:
        documents = [
            {
                "channel": name,
                "version": version.label,
                "manifest": version.manifest.hex(),
                "released": version.released,
                "withdrawn": version.yanked is not None,
            }
            for name, version in found
        ]
        print_json({"image": f"{wanted.publisher}/{wanted.image}", "channels": documents})
    elif not found:
        say(f"{wanted.publisher}/{wanted.image} has no channel")
    else:
        rows = [
            (name, version.label + (" (withdrawn)" if version.yanked else ""), version.released[:10])
            for name, version in found
        ]
        print_table(("CHANNEL", "VERSION", "RELEASED"), rows)


@channel.command("remove")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE")
@click.argument("name", metavar="CHANNEL")
@key_option
@passphrase_file_option
@token_file_option
@json_option
def remove_channel(
    reference: str, name: str, *, key: str, passphrase_file: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Let a channel be no more; the version that it points at stays.

    Who follows it keeps the version that he has, and hears at the next update that there is no such channel.
    What retention kept for it alone is no longer kept (oscirc retention plan).

    \b
    Example:
      oscirc channel remove alice/debian testing --key alice
    """
    from oscirc import composition
    from oscirc.publishing_text import say_change
    from oscirc_blockstore.image_index import DEFAULT_CHANNEL
    from oscirc_publisher import changing

    wanted = composition.parse_image_reference(reference)
    with composition.signatory(wanted, key, passphrase_file, token_file) as signatory:
        released = changing.remove_channel(signatory, wanted.image, name)
    if name == DEFAULT_CHANNEL:
        warn(f"who names no channel means {DEFAULT_CHANNEL}: {wanted.publisher}/{wanted.image} alone means nothing now")
    say_change(released, f"{wanted.publisher}/{wanted.image}#{name} is no more", as_json=as_json)
