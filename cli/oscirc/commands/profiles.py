"""`oscirc profile make | add | bundle | list | remove`: profiles of released versions, and their bundles."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

import click

from oscirc.options import json_option, token_file_option
from oscirc.output import human_bytes, print_done, print_json, print_table, say


@click.group()
def profile() -> None:
    """Boot profiles of released versions: what lets clients fetch a boot in one stream."""


@profile.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE…", type=click.Path(path_type=Path))
@click.option("--name", default="boot", show_default=True, help="The profile's name: clients use 'boot' by default.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The profile's file (default: <image>-<version>.<name>.profile.json).",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@json_option
def make(
    reference: str, traces: tuple[Path, ...], *, name: str, output: Path | None, force: bool, as_json: bool
) -> None:
    """Write a profile of what mounts of a version read: a desktop session, a build, whatever is done often.

    Traces are written by `oscirc mount --trace FILE`, until the mount ends. Several become one profile: what most of
    them touched comes first.

    \b
    Example:
      oscirc mount alice/debian@12.1 /mnt --trace session.trace
      oscirc profile make alice/debian@12.1 session.trace --name session -o session.profile.json
      oscirc profile add alice/debian@12.1 session.profile.json
    """
    from oscirc import output_places, profile_making
    from oscirc_blockstore.errors import LocalError
    from oscirc_blockstore.names import check_channel
    from oscirc_remote.resolving import resolve

    check_channel(name)
    resolved = resolve(reference)
    place = output or Path(f"{resolved.image}-{resolved.version_label}.{name}.profile.json")
    if place.exists() and not force:
        raise LocalError(f"{place} is there already", hint="give another name, or --force")
    output_places.check_file(place)
    geometry = resolved.manifest.geometry
    made = profile_making.make(traces, name, resolved.manifest_digest, geometry)
    output_places.write(place, made.serialise())
    size = len(made.positions) * geometry.block_size
    facts = {"file": str(place), "name": name, "runs": made.runs, "blocks": len(made.positions), "bytes": size}
    print_done(facts, f"{place}: {len(made.positions)} blocks, {human_bytes(size)} of the disk", as_json=as_json)


@profile.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("files", nargs=-1, required=True, metavar="[NAME=]FILE…")
@token_file_option
@json_option
def add(reference: str, files: tuple[str, ...], *, token_file: Path | None, as_json: bool) -> None:
    """Build the bundles of recorded profiles and put them beside a released version.

    With NAME= a profile goes by that name. One that was recorded on another version is as good as its positions are.

    \b
    Example:
      oscirc profile add alice/debian@12.1 debian-12.1.boot.profile.json desktop=session.profile.json
    """
    from oscirc import accelerating, composition
    from oscirc_remote.resolving import resolve

    recorded = accelerating.read_profiles(files)
    wanted = composition.parse_version_reference(reference)
    resolved = resolve(f"{wanted.remote.name}:{wanted.publisher}/{wanted.image}@{wanted.version}")
    with composition.rest_client(wanted.remote, token_file) as client:
        added = accelerating.add_profiles(client, resolved, recorded, quiet=as_json)
    if as_json:
        print_json({"profiles": [asdict(each) for each in added]})
    else:
        accelerating.tell(added)


@profile.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.option("--from", "source", default="fleet-boot", show_default=True, help="The profile to make a bundle of.")
@click.option("--name", help="What to call the bundle, and the profile beside it (default: without fleet-).")
@click.option("--dry-run", is_flag=True, help="Only tell how it differs from what is there.")
@token_file_option
@json_option
def bundle(
    reference: str, *, source: str, name: str | None, dry_run: bool, token_file: Path | None, as_json: bool
) -> None:
    """Make the bundle of a version from a profile that its server has: from the boots that users shared, say.

    \b
    Example:
      oscirc profile bundle alice/debian@12.1 --from fleet-boot --dry-run
      oscirc profile bundle alice/debian@12.1 --from fleet-boot
    """
    from oscirc import accelerating, composition
    from oscirc_blockstore.names import check_channel
    from oscirc_remote.resolving import resolve

    wanted = composition.parse_version_reference(reference)
    target = check_channel(name or check_channel(source).removeprefix("fleet-"))
    resolved = resolve(f"{wanted.remote.name}:{wanted.publisher}/{wanted.image}@{wanted.version}")
    with composition.rest_client(wanted.remote, token_file, authorised=not dry_run) as client:
        taken, difference = accelerating.compared(client, resolved, source, target)
        if not as_json:
            accelerating.tell_difference(difference)
        added = [] if dry_run else accelerating.add_profiles(client, resolved, [taken], quiet=as_json)
    if as_json:
        print_json({"difference": asdict(difference), "profiles": [asdict(each) for each in added]})
    else:
        accelerating.tell(added)


@profile.command("list")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@json_option
def list_profiles(reference: str, *, as_json: bool) -> None:
    """The profiles and bundles of a version.

    \b
    Example:
      oscirc profile list alice/debian@12.1
    """
    from oscirc import composition
    from oscirc_blockstore.accelerators import LENGTHS, PACKAGES, SCREENSHOT
    from oscirc_publisher.accelerating import VersionName

    wanted = composition.parse_version_reference(reference)
    name = VersionName(wanted.publisher, wanted.image, wanted.version)
    with composition.rest_client(wanted.remote, None, authorised=False) as client:
        answer = client.call_json("GET", f"{name.path}/accelerators")
    listed = answer.get("accelerators")
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    found = [each for each in found if each.get("kind") not in (LENGTHS, PACKAGES, SCREENSHOT)]  # nothing to boot with
    if as_json:
        print_json({"accelerators": found})
    elif not found:
        say("none; make one with: oscirc record")
    else:
        rows = [(str(each["name"]), str(each["kind"]), human_bytes(int(str(each["length"])))) for each in found]
        print_table(("NAME", "KIND", "SIZE"), rows)


@profile.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("name")
@token_file_option
@json_option
def remove(reference: str, name: str, *, token_file: Path | None, as_json: bool) -> None:
    """Take a profile and its bundle away. Clients then fetch as they read.

    \b
    Example:
      oscirc profile remove alice/debian@12.1 desktop
    """
    from oscirc import composition
    from oscirc_blockstore.errors import NotFoundError
    from oscirc_publisher.accelerating import VersionName

    wanted = composition.parse_version_reference(reference)
    version = VersionName(wanted.publisher, wanted.image, wanted.version)
    removed: list[str] = []
    with composition.rest_client(wanted.remote, token_file) as client:
        for kind in ("bundle", "profile"):
            with contextlib.suppress(NotFoundError):
                client.call("DELETE", f"{version.path}/accelerators/{kind}/{name}")
                removed.append(kind)
    said = f"{len(removed)} removed" if removed else f"{reference} has no profile called {name}"
    print_done({"name": name, "removed": removed}, said, as_json=as_json)
