"""`oscirc record`: boot an image and write down what its boot touches."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from oscirc.options import json_option, recording_options, token_file_option
from oscirc.output import human_bytes, print_json, say, warn
from oscirc.screenshots import screenshot_options

if TYPE_CHECKING:
    from oscirc.screenshots import Sent, Wish
    from oscirc_fusedriver.readers import MountOptions, PreparedImage
    from oscirc_publisher.rest import RestClient
    from oscirc_remote.resolving import Resolved
    from oscirc_vmlaunch.machine import Display


@click.command()
@click.argument("reference")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The profile's file (default: <image>-<version>.<name>.profile.json).",
)
@click.option("--name", default="boot", show_default=True, help="The profile's name: clients use 'boot' by default.")
@recording_options()
@click.option("--memory", type=click.IntRange(1), help="Memory in MiB of every run (default: another for each).")
@click.option("--cpus", type=click.IntRange(1, 255), help="Processors of every run (default: another for each).")
@click.option("--keep-traces", type=click.Path(path_type=Path), help="Keep the read traces in this directory.")
@click.option("--interactive", is_flag=True, help="Record by hand: the console is this terminal; Ctrl-] ends it.")
@click.option(
    "--display",
    type=click.Choice(["none", "gtk", "sdl"]),
    default="none",
    show_default=True,
    help="With --interactive: a window with the guest's display.",
)
@screenshot_options
@click.option("--screenshot-file", type=click.Path(path_type=Path), help="Keep the picture (PNG) in this file.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@token_file_option
@json_option
def record(
    reference: str,
    *,
    output: Path | None,
    name: str,
    until: str,
    settle: float,
    runs: int,
    timeout: float,
    accel: str,
    memory: int | None,
    cpus: int | None,
    keep_traces: Path | None,
    interactive: bool,
    display: str,
    screenshot: bool,
    alt: str,
    blank_screenshot: bool,
    screenshot_file: Path | None,
    force: bool,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Boot an image a few times and write its boot profile: the blocks that a boot touches, in order.

    Give it to `oscirc publish --profile` or `oscirc profile add`; then clients fetch what a boot needs in one stream.

    With --screenshot what the display of the last boot shows at the prompt is put beside the version, for the image's
    page; that takes a token of its publisher. A display that shows nothing is told of and not sent.

    With --interactive one boot is recorded until Ctrl-] is typed or the guest is shut down, whatever --until and --runs
    say: what you do meanwhile is in the profile. Several of them are merged with --keep-traces and `profile make`.

    \b
    Example:
      oscirc record alice/debian -o debian.profile.json
      oscirc record alice/debian@12.1 --runs 1 --screenshot --alt 'Debian 12 at its login prompt'
      oscirc record alice/debian --name desktop --until 'Reached target .*Graphical'
      oscirc record alice/debian --name session --interactive --display gtk
    """
    from oscirc import composition, output_places, recording, recording_terminal, screenshots
    from oscirc_blockstore.errors import LocalError
    from oscirc_blockstore.names import check_channel
    from oscirc_remote.resolving import resolve_for_boot

    check_channel(name)
    recording_terminal.check(interactive=interactive, display=display, screenshot=screenshot, as_json=as_json)
    wish = screenshots.wish(wanted=screenshot, alt=alt, blank_too=blank_screenshot, file=screenshot_file)
    resolved = resolve_for_boot(reference)
    for warning in resolved.warnings:
        warn(warning)
    place = output or Path(f"{resolved.image}-{resolved.version_label}.{name}.profile.json")
    for file in filter(None, (place, screenshot_file)):
        if file.exists() and not force:
            raise LocalError(f"{file} is there already", hint="give another name, or --force")
        output_places.check_file(file)  # before minutes of booting, not after them
    options = recording.RecordingOptions(
        name=name,
        until=until,
        settle_s=settle,
        runs=1 if interactive else runs,
        timeout_s=timeout,
        accelerator=accel,
        memory_mib=memory,
        cpus=cpus,
        keep_traces=keep_traces,
        interactive=interactive,
        display=cast("Display", display),
    )

    def prepare(chosen: MountOptions) -> PreparedImage:
        return composition.image_reader_of(resolved, chosen)

    block_size = resolved.manifest.geometry.block_size
    with contextlib.ExitStack() as held:
        client = held.enter_context(_authorised(resolved, token_file)) if screenshot else None
        profile = recording.record(
            prepare,
            resolved.manifest.system,
            resolved.manifest_digest,
            block_size,
            options,
            wish.look if wish.wanted else None,
        )
        output_places.write(place, profile.serialise())
        sent = _picture(resolved, wish, client, until, screenshot_file)
    facts = {
        "file": str(place),
        "name": name,
        "runs": profile.runs,
        "blocks": len(profile.positions),
        "bytes": len(profile.positions) * block_size,
        "manifest": profile.manifest.hex(),
        "screenshot": None if sent is None else asdict(sent),
    }
    if as_json:
        print_json(facts)
    else:
        say(f"{place}: {len(profile.positions)} blocks, {human_bytes(len(profile.positions) * block_size)} of the disk")
        if sent is not None:
            screenshots.tell(sent)


def _authorised(resolved: Resolved, token_file: Path | None) -> contextlib.AbstractContextManager[RestClient]:
    """Who may put something beside a version; without a token that is told before minutes are spent."""
    from oscirc import composition
    from oscirc_blockstore.errors import UsageError

    if not resolved.version_label:
        raise UsageError("a picture stands beside a version, and this digest has no name", hint="name the version")
    return composition.rest_client(resolved.remote, token_file)


def _picture(resolved: Resolved, wish: Wish, client: RestClient | None, until: str, file: Path | None) -> Sent | None:
    """What became of the picture: kept in a file, sent where there is a client; None where nothing was sent."""
    from oscirc import output_places, screenshots
    from oscirc_blockstore.screenshot import DEFAULT_NAME
    from oscirc_publisher.accelerating import VersionName

    png = wish.png()
    if png is None:
        return None
    if file is not None:
        output_places.write(file, png)
    if client is None:
        return None
    name = VersionName(resolved.publisher, resolved.image, resolved.version_label)
    return screenshots.put(client, name, resolved.manifest_digest, DEFAULT_NAME, wish.words(name, until), png)
