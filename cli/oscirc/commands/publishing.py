"""`oscirc publish`: a disk, or what an instance has become, as a version. Signs with a key that stays here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.describing import about_options
from oscirc.options import (
    json_option,
    key_unless_dry_option,
    passphrase_file_option,
    recording_options,
    token_file_option,
)
from oscirc.output import human_bytes, progress
from oscirc.pipelines import oidc_options
from oscirc.screenshots import screenshot_options

if TYPE_CHECKING:
    from oscirc.describing import Say
    from oscirc.instance_publishing import OpenedInstance
    from oscirc.output import Bar
    from oscirc_blockstore.disk_source import DiskSource
    from oscirc_blockstore.manifest import SystemFacts
    from oscirc_blockstore.profile import Profile
    from oscirc_publisher.disks import DiskFormat

_PHASES = {"comparing": "comparing", "uploading": "publishing", "releasing": "releasing"}


class _Shown:
    """Draws a publication's progress: bytes of the disk, with what was sent beside."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, phase: str, done_bytes: int, total_bytes: int, uploaded_bytes: int) -> None:
        """Move the bar."""
        self._bar.total = total_bytes
        self._bar.set_postfix_str(f"{_PHASES[phase]}, {human_bytes(uploaded_bytes)} sent", refresh=False)
        self._bar.update(done_bytes - self._done)
        self._done = done_bytes


@click.command()
@click.pass_context
@click.argument("disk", metavar="DISK|instance:NAME")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@key_unless_dry_option
@passphrase_file_option
@token_file_option
@oidc_options
@click.option("--channel", default="stable", show_default=True, help="Channel to point at this version.")
@click.option("--no-channel", is_flag=True, help="Move no channel.")
@click.option(
    "--format",
    "declared",
    type=click.Choice(["raw", "qcow2", "vmdk", "vdi", "vhdx"]),
    help="The disk's format (default: detected).",
)
@click.option("--os", "family", default="unknown", help="Family of the system: debian, freebsd, …")
@click.option("--os-version", default="", help="Version of the system: 12, 14.1, …")
@click.option("--arch", default="x86_64", show_default=True, help="Processor architecture.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True)
@click.option("--memory", default=512, show_default=True, help="Least memory that the system needs, in MiB.")
@click.option("--login", default="", help="How to log in at first: shown to users.")
@click.option("--changelog", default="", help="What is new in this version.")
@click.option(
    "--changelog-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The same, from a file."
)
@about_options
@click.option(
    "--level",
    default=None,
    type=click.IntRange(1, 22),
    help="Compression level (default: 2; for an update more).",
)
@click.option("--block-size", default=None, type=int, help="Bytes in a block (default: 262144).")
@click.option(
    "--profile",
    "profiles_given",
    multiple=True,
    metavar="[NAME=]FILE|auto",
    help="A boot profile (oscirc record), or auto: boot the disk here and record one. Repeatable.",
)
@click.option(
    "--deltas",
    type=click.IntRange(0, 20),
    metavar="N",
    help="Make delta packs from the N versions that people have: what the channel pointed at, and those before "
    "(default: 1, unless the server makes it; of instance:NAME none, since that takes time and bytes as the base "
    "is large).",
)
@click.option("--no-packages", is_flag=True, help="Send no list of the packages on the disk (dpkg, apk).")
@recording_options("record-")
@screenshot_options
@click.option("--clean", is_flag=True, help="instance:NAME: publish it without what should not be public.")
@click.option("--keep-secrets", is_flag=True, help="instance:NAME: publish what should not be public, too.")
@click.option(
    "--dry-run",
    is_flag=True,
    is_eager=True,
    help="instance:NAME: say what changed and what is private; publish nothing.",
)
@json_option
def publish(  # one parameter for each option
    context: click.Context,
    /,
    disk: str,
    reference: str,
    *,
    key: str,
    passphrase_file: Path | None,
    token_file: Path | None,
    oidc_token_file: Path | None,
    oidc_token_env: str | None,
    channel: str,
    no_channel: bool,
    declared: str | None,
    changelog: str,
    changelog_file: Path | None,
    level: int | None,
    block_size: int | None,
    profiles_given: tuple[str, ...],
    deltas: int | None,
    no_packages: bool,
    record_until: str,
    record_settle: float,
    record_runs: int,
    record_timeout: float,
    record_accel: str,
    screenshot: bool,
    alt: str,
    blank_screenshot: bool,
    clean: bool,
    keep_secrets: bool,
    dry_run: bool,
    as_json: bool,
    say: Say | None,
    **facts: str | int,
) -> None:
    """Publish a disk (raw, qcow2, vmdk, vdi or vhdx), or what an instance has become, as a new version of an image.

    Only blocks that the server lacks are sent. Run it again after an interruption: it goes on where it was. The same
    disk under the same version again changes nothing.

    Of instance:NAME, which must be stopped, only what was written since it was made is read. Facts that are not given
    are those of the version that it was made on. What should not be public (host keys, passwords, histories, logs, …)
    is listed, and nothing is published unless --clean leaves it out or --keep-secrets allows it.

    With --profile auto the disk is booted here first, a few times, and what its boots read becomes the profile with
    which clients fetch a boot in one stream. A disk that does not come to its prompt is not released.
    With --screenshot what its display shows at the prompt goes with it, for the image's page.

    Names and versions of the packages that dpkg or apk noted on an ext4 file system of the disk go with it, for pages
    that say what changed; --no-packages sends none.

    What the image is (--title to --end-of-life) stays said for later versions until something else is said, here or
    with oscirc describe.

    From the version before a delta pack is made, with which clients that have that version fetch a fraction of what
    changed; its blocks come from the cache of this machine, or else from the repository. A server that runs jobs makes
    that pack itself, after the release: it is left to it unless --deltas says otherwise. The channel moves after what
    is made here, so that whoever follows it finds all of this there.

    \b
    Example:
      oscirc publish debian.qcow2 alice/debian@12.1 --key alice --os debian --os-version 12 --firmware uefi
      oscirc publish debian.raw alice/debian@12.2 --key alice --firmware uefi --profile auto
      oscirc publish instance:debian alice/debian@12.3 --dry-run
    """
    from oscirc import (
        accelerating,
        channel_moving,
        composition,
        instance_publishing,
        package_sending,
        packing,
        pipelines,
        publishing_text,
        quota_notice,
        recording,
        screenshots,
    )
    from oscirc_blockstore.table import DEFAULT_BLOCK_SIZE
    from oscirc_publisher.disks import FORMATS, open_disk
    from oscirc_publisher.publishing import publish as publish_disk

    wanted = composition.parse_version_reference(reference)
    changelog = changelog if changelog_file is None else _text_of(changelog_file)
    form: DiskFormat | None = next((known for known in FORMATS if known == declared), None)
    recorded_here = accelerating.AUTO in profiles_given
    automatic = recording.RecordingOptions(
        until=record_until,
        settle_s=record_settle,
        runs=record_runs,
        timeout_s=record_timeout,
        accelerator=record_accel,
    )
    profiles = _given(profiles_given, automatic.name)
    look = screenshots.wish(wanted=screenshot, alt=alt, blank_too=blank_screenshot, boots=recorded_here)
    wish = instance_publishing.Wish(clean=clean, keep_secrets=keep_secrets, dry_run=dry_run)
    instance_name = instance_publishing.named(disk, wish, recorded=recorded_here)
    with contextlib.ExitStack() as held:
        made: OpenedInstance | None = None
        source: DiskSource
        if instance_name is not None:
            made = held.enter_context(instance_publishing.decided(instance_name, wish, quiet=as_json))
            source = made.disk
            changelog = changelog or f"{made.base_name} with changes"
        else:
            source = held.enter_context(contextlib.closing(open_disk(Path(disk), form)))
        system = _facts(context, facts, made.resolved.manifest.system if made else None)
        size = block_size or (made.resolved.manifest.geometry.block_size if made else DEFAULT_BLOCK_SIZE)
        if made is not None and dry_run:
            publishing_text.report_dry(made, as_json=as_json)
            return
        jwt = pipelines.jwt_of(oidc_token_file, oidc_token_env)
        bearer = None if jwt is None else pipelines.token_for(wanted.remote, wanted.publisher, jwt)
        signatory = held.enter_context(composition.signatory(wanted, key, passphrase_file, token_file, bearer=bearer))
        if recorded_here:
            signatory.served_role()  # what would be refused is refused before minutes are spent
            profiles += accelerating.record_before_release(
                signatory.rest, wanted, Path(disk), form, system, size, automatic, look.look if screenshot else None
            )
        accelerating.check_positions(profiles, source.size, size)
        index = signatory.served_index(signatory.served_role(), wanted.image)
        target = None if no_channel else channel
        bases = packing.bases(index, wanted, target, deltas, is_instance=made is not None)
        if packing.left_to_server(signatory.rest, wanted, bases, target, deltas):
            bases = []
        move = channel_moving.planned(
            signatory, wanted, index, target, named=_named(context, "channel"), is_last=bool(profiles or bases)
        )
        with progress("publish", None, quiet=as_json) as bar:
            result = publish_disk(
                source,
                signatory,
                wanted.image,
                wanted.version,
                system=system,
                channel=move.with_release,
                changelog=changelog,
                level=level,
                block_size=size,
                progress=_Shown(bar),
                base_is_there=made is not None and made.resolved.remote.url == wanted.remote.url,
                say=say,
            )
        added = accelerating.add_to_published(wanted, signatory.rest, profiles, source, quiet=as_json)
        listed = (
            None if no_packages else package_sending.add_to_published(signatory.rest, wanted, result.manifest, source)
        )
        pictured = screenshots.add_to_published(signatory.rest, wanted, result.manifest, look, record_until)
        packs = packing.add_to_published(wanted, signatory.rest, bases, source, size, quiet=as_json)
        result = move.finish(signatory, result)
        if result.changed:
            quota_notice.tell(signatory.rest, wanted.publisher)
        publishing_text.report(
            result,
            composition.stored_bytes(signatory.rest, wanted.publisher, wanted.image, wanted.version),
            added,
            packs,
            listed,
            pictured,
            made,
            as_json=as_json,
        )


def _given(texts: Sequence[str], recorded: str) -> list[Profile]:
    """The profiles in files; one may not have the name of what --profile auto records."""
    from oscirc import accelerating
    from oscirc_blockstore.errors import UsageError

    profiles = accelerating.read_profiles([text for text in texts if text != accelerating.AUTO])
    if accelerating.AUTO in texts and any(each.name == recorded for each in profiles):
        raise UsageError(f"a profile called {recorded!r} is given, and --profile auto records one of that name")
    return profiles


_FACTS = {
    "family": "family",
    "os_version": "version",
    "arch": "architecture",
    "firmware": "firmware",
    "memory": "minimum_memory_mib",
    "login": "default_login",
}


def _facts(context: click.Context, facts: Mapping[str, str | int], base: SystemFacts | None) -> SystemFacts:
    """What the options say of the system; of an instance, what they do not say is its base's."""
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_blockstore.manifest import SystemFacts

    given = {field: facts[option] for option, field in _FACTS.items() if base is None or _named(context, option)}
    try:
        return replace(base or SystemFacts(), **given)  # type: ignore[arg-type]  # click has made each of its type
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None


def _named(context: click.Context, option: str) -> bool:
    """Whether the user gave it: a channel that is only the default is never moved back to what was released before."""
    return context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _text_of(file: Path) -> str:
    from oscirc.text_files import bounded_text
    from oscirc_blockstore.image_index import MAX_CHANGELOG_CHARS

    return bounded_text(file, 4 * MAX_CHANGELOG_CHARS, "the changelog").strip()  # no character has more than 4 bytes
