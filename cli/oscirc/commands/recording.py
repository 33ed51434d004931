"""`oscirc record`: boot an image and write down what its boot touches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, recording_options
from oscirc.output import human_bytes, print_json, say, warn

if TYPE_CHECKING:
    from oscirc_fusedriver.readers import MountOptions, PreparedImage


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
@click.option("--force", is_flag=True, help="Overwrite the output.")
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
    force: bool,
    as_json: bool,
) -> None:
    """Boot an image a few times and write its boot profile: the blocks that a boot touches, in order.

    Give it to `oscirc publish --profile` or `oscirc profile add`; then clients fetch what a boot needs in one stream.

    \b
    Example:
      oscirc record alice/debian -o debian.profile.json
      oscirc record alice/debian --name desktop --until 'Reached target .*Graphical'
    """
    from oscirc import composition, recording
    from oscirc_blockstore.errors import LocalError
    from oscirc_blockstore.names import check_channel
    from oscirc_remote.resolving import resolve_for_boot

    check_channel(name)
    resolved = resolve_for_boot(reference)
    for warning in resolved.warnings:
        warn(warning)
    place = output or Path(f"{resolved.image}-{resolved.version_label}.{name}.profile.json")
    if place.exists() and not force:
        raise LocalError(f"{place} is there already", hint="give another -o, or --force")
    options = recording.RecordingOptions(
        name=name,
        until=until,
        settle_s=settle,
        runs=runs,
        timeout_s=timeout,
        accelerator=accel,
        memory_mib=memory,
        cpus=cpus,
        keep_traces=keep_traces,
    )

    def prepare(chosen: MountOptions) -> PreparedImage:
        return composition.image_reader_of(resolved, chosen)

    block_size = resolved.manifest.geometry.block_size
    profile = recording.record(prepare, resolved.manifest.system, resolved.manifest_digest, block_size, options)
    try:
        place.write_bytes(profile.serialise())
    except OSError as error:
        raise LocalError(f"cannot write {place}: {error.strerror}") from None
    facts = {
        "file": str(place),
        "name": name,
        "runs": profile.runs,
        "blocks": len(profile.positions),
        "bytes": len(profile.positions) * block_size,
        "manifest": profile.manifest.hex(),
    }
    if as_json:
        print_json(facts)
    else:
        say(f"{place}: {len(profile.positions)} blocks, {human_bytes(len(profile.positions) * block_size)} of the disk")
