"""`oscirc screenshot add | list | remove`: the pictures beside released versions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from oscirc.options import json_option, token_file_option
from oscirc.output import print_done, print_json, print_table, say


@click.group()
def screenshot() -> None:
    """Pictures of released versions, for the image's page; `oscirc record --screenshot` takes one."""


@screenshot.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--alt", required=True, help="What the picture shows, in words for who does not see it.")
@click.option("--name", default="console", show_default=True, help="Pictures of a version are shown in order of name.")
@token_file_option
@json_option
def add(reference: str, file: Path, *, alt: str, name: str, token_file: Path | None, as_json: bool) -> None:
    """Put a PNG picture beside a released version, instead of any of that name.

    It has 8 bits a sample, is not interlaced, at most 2 MiB long and 3840 x 2160 pixels large. Texts, times and colour
    profiles in the file are left out.

    \b
    Example:
      oscirc screenshot add alice/debian@12.1 desktop.png --name desktop --alt 'GNOME with the file manager open'
    """
    from oscirc import composition, screenshots
    from oscirc_blockstore.names import check_channel
    from oscirc_publisher.accelerating import VersionName
    from oscirc_remote.resolving import resolve

    check_channel(name)
    look = screenshots.wish(wanted=True, alt=alt, blank_too=True)
    png = screenshots.picture_in(file)
    wanted = composition.parse_version_reference(reference)
    resolved = resolve(f"{wanted.remote.name}:{wanted.publisher}/{wanted.image}@{wanted.version}")
    version = VersionName(wanted.publisher, wanted.image, wanted.version)
    with composition.rest_client(wanted.remote, token_file) as client:
        sent = screenshots.put(client, version, resolved.manifest_digest, name, look.alt, png)
    if as_json:
        print_json({"screenshot": asdict(sent)})
    else:
        screenshots.tell(sent)


@screenshot.command("list")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@json_option
def list_screenshots(reference: str, *, as_json: bool) -> None:
    """The pictures of a version.

    \b
    Example:
      oscirc screenshot list alice/debian@12.1
    """
    from oscirc import composition
    from oscirc_publisher import screenshots
    from oscirc_publisher.accelerating import VersionName

    wanted = composition.parse_version_reference(reference)
    with composition.rest_client(wanted.remote, None, authorised=False) as client:
        found = screenshots.listed(client, VersionName(wanted.publisher, wanted.image, wanted.version))
    if as_json:
        print_json({"screenshots": [asdict(each) for each in found]})
    elif not found:
        say("none; take one with: oscirc record --screenshot")
    else:
        rows = [(each.name, f"{each.width} x {each.height}", each.alt) for each in found]
        print_table(("NAME", "PIXELS", "WORDS"), rows)


@screenshot.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("name")
@token_file_option
@json_option
def remove(reference: str, name: str, *, token_file: Path | None, as_json: bool) -> None:
    """Take a picture away.

    \b
    Example:
      oscirc screenshot remove alice/debian@12.1 console
    """
    from oscirc import composition
    from oscirc_blockstore.names import check_channel
    from oscirc_publisher import screenshots
    from oscirc_publisher.accelerating import VersionName

    check_channel(name)
    wanted = composition.parse_version_reference(reference)
    with composition.rest_client(wanted.remote, token_file) as client:
        screenshots.remove(client, VersionName(wanted.publisher, wanted.image, wanted.version), name)
    print_done({"removed": name}, f"{reference} has no picture called {name} any more", as_json=as_json)
