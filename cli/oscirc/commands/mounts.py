"""`oscirc mount | umount`: images as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.fetching_ahead import ahead_options, wish
from oscirc.options import Seconds, json_option
from oscirc.output import print_done, print_json, say, warn

if TYPE_CHECKING:
    from oscirc_fusedriver.readers import PreparedImage
    from oscirc_fusedriver.records import MountRecord


@click.command()
@click.argument("reference")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--foreground", is_flag=True, help="Stay here until it is unmounted (Ctrl-C unmounts).")
@click.option(
    "--deadline", type=Seconds(), default=10.0, show_default=True, help="Seconds that a read waits for the network."
)
@click.option("--allow-revoked", is_flag=True, help="Mount a version that was withdrawn for security reasons.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mount (needs user_allow_other).")
@click.option("--direct-io", is_flag=True, help="Keep the kernel's page cache out: to record what a guest asks for.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Record every read in this new file; implies --direct-io, and fetches nothing ahead.",
)
@ahead_options
@json_option
def mount(
    reference: str,
    mountpoint: Path,
    *,
    foreground: bool,
    deadline: float,
    allow_revoked: bool,
    allow_other: bool,
    direct_io: bool,
    trace: Path | None,
    prefetch: bool | None,
    profile: str | None,
    fill: bool | None,
    fill_rate: str | None,
    as_json: bool,
) -> None:
    """Mount an image: MOUNTPOINT/disk.raw, verified and fetched as it is read.

    MOUNTPOINT is an empty directory. Returns when the disk can be read. With a receipt of an earlier use it mounts
    without network too, with a warning.

    \b
    Example:
      mkdir debian && oscirc mount alice/debian debian && fdisk -l debian/disk.raw
    """
    from oscirc import composition
    from oscirc_fusedriver import mounting
    from oscirc_fusedriver.readers import MountOptions
    from oscirc_remote import references

    wanted = references.parse(reference)
    ahead = wish(prefetch=prefetch, profile=profile, fill=fill, fill_rate=fill_rate)
    options = MountOptions(
        allow_other=allow_other,
        direct_io=direct_io or trace is not None,
        trace=trace.absolute() if trace is not None else None,
        deadline_s=deadline,
    )

    def prepare() -> PreparedImage:
        return composition.resolve_and_open(wanted, options, ahead, allow_revoked=allow_revoked, tell=warn)

    def ready(record: MountRecord) -> None:
        name = f"{record.image}@{record.version}" if record.version else record.image
        facts = {
            "mountpoint": record.mountpoint,
            "disk": str(record.disk),
            "image": name,
            "remote": record.remote,
            "manifest": record.manifest_digest,
            "pid": record.pid,
        }
        print_done(facts, f"{name} is mounted: {record.disk}", as_json=as_json)

    mounting.mount(prepare, mountpoint, foreground=foreground, options=options, on_ready=ready)


@click.command()
@click.argument("mountpoints", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MOUNTPOINT…")
@click.option("--lazy", is_flag=True, help="Detach it although files are open; the driver ends with the last close.")
@json_option
def umount(mountpoints: tuple[Path, ...], *, lazy: bool, as_json: bool) -> None:
    """Unmount images. Harmless where nothing is mounted; cleans up after a driver that died.

    \b
    Example:
      oscirc umount debian
    """
    from oscirc_fusedriver import unmounting

    done = []
    for mountpoint in mountpoints:
        outcome = unmounting.unmount(mountpoint, lazy=lazy)
        done.append({"mountpoint": str(mountpoint), "outcome": outcome.name.lower()})
        say(f"{mountpoint}: {outcome.value}")
    if as_json:
        print_json({"mounts": done})
