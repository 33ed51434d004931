"""Composes the rooms for commands: remotes with publishing clients, images with mounts, mounts with instances."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc import hoarding
from oscirc.fetching_ahead import AS_PREFERRED
from oscirc.options import passphrase, token
from oscirc.output import warn
from oscirc_blockstore.errors import BusyError, OscircError, TransportError, UsageError
from oscirc_blockstore.names import check_publisher
from oscirc_remote import paths, references
from oscirc_remote.remotes import Remote, Remotes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from oscirc.fetching_ahead import AheadWish
    from oscirc_fusedriver.readers import MountOptions, PreparedImage
    from oscirc_fusedriver.records import MountRecord
    from oscirc_publisher.releasing import Signatory
    from oscirc_publisher.rest import RestClient
    from oscirc_remote.early import EarlyBundle
    from oscirc_remote.prefetch import PrefetchOptions
    from oscirc_remote.references import Reference
    from oscirc_remote.resolving import Resolved

BUSY_S = 0.1


@dataclass(frozen=True, slots=True)
class VersionReference:
    """A version to be made or changed: where, whose, and its label."""

    remote: Remote
    publisher: str
    image: str
    version: str


def only_remote(name: str | None) -> Remote:
    """The remote of that name, or the only one there is."""
    remotes = Remotes()
    if name is not None:
        return remotes.load(name)
    found = remotes.list()
    if len(found) == 1:
        return found[0]
    known = ", ".join(remote.name for remote in found) or "none yet; add one with: oscirc remote add NAME LINE"
    raise UsageError("say which remote is meant", hint=f"remotes: {known}")


def parse_version_reference(text: str) -> VersionReference:
    """`[REMOTE:]PUBLISHER/IMAGE@VERSION` of a remote that is known; without REMOTE, of the only one."""
    reference = references.parse(text)
    if not reference.version:
        raise UsageError(f"{text!r} names no version", hint="write [REMOTE:]PUBLISHER/IMAGE@VERSION")
    return VersionReference(
        only_remote(reference.remote or None), reference.publisher, reference.image, reference.version
    )


def parse_image_reference(text: str) -> VersionReference:
    """`[REMOTE:]PUBLISHER/IMAGE` alone, for what holds for all versions; without REMOTE, of the only remote."""
    reference = references.parse(text)
    if "@" in text or "#" in text:
        raise UsageError(f"{text!r} names more than an image", hint="write [REMOTE:]PUBLISHER/IMAGE")
    return VersionReference(only_remote(reference.remote or None), reference.publisher, reference.image, "")


def parse_publisher(text: str) -> tuple[Remote, str]:
    """`[REMOTE:]NAME`."""
    remote, colon, name = text.rpartition(":")
    check_publisher(name)
    return only_remote(remote if colon else None), name


def trusted_roles(remote: Remote) -> tuple[bytes, bytes]:
    """The repository's root and targets role in force, fetched now and verified from the pinned root on."""
    from oscirc_remote.session import Session

    with Session(remote) as session:
        return session.signed_roles()


@contextlib.contextmanager
def rest_client(
    remote: Remote, token_file: Path | None, *, authorised: bool = True, bearer: str | None = None
) -> Iterator[RestClient]:
    """A client of the remote's REST API, with the stored token unless another is given (`bearer`: this very one)."""
    from oscirc_publisher.rest import RestClient

    if authorised and bearer is None:
        bearer = token(remote.token(), remote.name, token_file)
    with RestClient(remote.url, api_url=remote.api_url(), token=bearer) as client:
        yield client


@contextlib.contextmanager
def signatory(
    wanted: VersionReference,
    key: str,
    passphrase_file: Path | None,
    token_file: Path | None,
    *,
    also_trusted: Sequence[Ed25519PublicKey] = (),
    bearer: str | None = None,
) -> Iterator[Signatory]:
    """A publisher with its key, ready to sign in the remote that a reference names.

    What needs others' signatures, too, is written to the working directory as a signing request, and told.
    """
    from oscirc_publisher.joint_signing import AwaitsSignaturesError, joint_keys
    from oscirc_publisher.releasing import Signatory
    from oscirc_publisher.signing import KeyRing

    ring = KeyRing()
    names = key.split(",")
    for name in names:
        ring.show(name)  # an unknown name is said before a passphrase is asked for
    loaded = [ring.load(name, passphrase(passphrase_file, what=f"the key {name}")) for name in names]
    with rest_client(wanted.remote, token_file, bearer=bearer) as client:
        elsewhere = [url for url in loaded[0].repositories(wanted.publisher) if url != client.url]
        if elsewhere:
            warn(
                f"the key {names[0]} signs for {wanted.publisher} in {elsewhere[0]}, too: what it signs for one can be "
                "offered in the other by whoever has a token there. Use a key for one repository only."
            )
        try:
            yield Signatory(
                client,
                wanted.publisher,
                loaded[0],
                also_trusted=also_trusted,
                co_signers=loaded[1:],
                joint=lambda: joint_keys(trusted_roles(wanted.remote)[1], wanted.publisher),
            )
        except AwaitsSignaturesError as error:
            from oscirc.ceremony_files import leave_request

            raise leave_request(error) from None


def stored_bytes(client: RestClient, publisher: str, image: str, version: str) -> int | None:
    """The compressed size of a version as its server states it; None when it does not."""
    try:
        answer = client.call_json("GET", f"images/{publisher}/{image}")
    except TransportError:
        return None
    versions = answer.get("versions")
    for item in versions if isinstance(versions, list) else []:
        if isinstance(item, dict) and item.get("version") == version and isinstance(item.get("download_bytes"), int):
            return int(item["download_bytes"])
    return None


def resolve_and_open(
    wanted: Reference, options: MountOptions, ahead: AheadWish, *, allow_revoked: bool, tell: Callable[[str], None]
) -> PreparedImage:
    """Resolve a reference and open it, its bundle started meanwhile; to be called in the driver's process."""
    from oscirc_remote.opening import start_early

    fetched = fetch_ahead_options(options, ahead)
    early = start_early(wanted, fetched, Remotes()) if fetched is not None else None
    try:
        resolved = resolve_to_boot(wanted, ahead, allow_revoked=allow_revoked, tell=tell)
    except BaseException:
        if early is not None:
            early.drop()
        raise
    return image_reader_of(resolved, options, ahead, early)


def fetch_ahead_options(options: MountOptions, ahead: AheadWish, *, leaving: bool = False) -> PrefetchOptions | None:
    """What a mount fetches before it is asked for; nothing where it is to see what a guest asks."""
    return None if options.direct_io else ahead.options(leaving=leaving)


def image_reader_of(
    resolved: Resolved, options: MountOptions, ahead: AheadWish = AS_PREFERRED, early: EarlyBundle | None = None
) -> PreparedImage:
    """What the driver serves for a resolved image; to be called in the driver's process."""
    from oscirc_fusedriver.readers import MountDescription, PreparedImage
    from oscirc_remote.opening import open_image

    return PreparedImage(
        open_image(
            resolved,
            deadline_s=options.deadline_s,
            prefetch=fetch_ahead_options(options, ahead, leaving=resolved.leaving),
            early=early,
            quota=hoarding.quota(),
        ),
        MountDescription(
            remote=resolved.remote.name,
            reference=str(resolved.reference),
            manifest_digest=resolved.manifest_digest.hex(),
            image=f"{resolved.publisher}/{resolved.image}",
            version=resolved.version_label,
        ),
        resolved.manifest.geometry.block_size,
    )


def mount_by_reference(
    wanted: Reference, options: MountOptions, ahead: AheadWish, *, allow_revoked: bool, tell: Callable[[str], None]
) -> tuple[MountRecord, Resolved]:
    """A live mount of what a reference means now, and what that is.

    Where a channel is named and nothing of the image is mounted, the driver itself finds that out, so that the bundle
    is under way meanwhile; its mount is named after the reference. Else see `mount_for_instance`.
    """
    from oscirc_fusedriver import mounting

    until = time.monotonic() + mounting.PREPARE_TIMEOUT_S
    while wanted.channel and not _is_any_mounted(f"{wanted.publisher}/{wanted.image}"):
        place = _automatic_mount(sha256(str(wanted).encode()).hexdigest())
        try:
            record = mounting.mount(
                lambda: resolve_and_open(wanted, options, ahead, allow_revoked=allow_revoked, tell=tell),
                place,
                options=options,
            )
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(BUSY_S)  # another boot of the same is just doing this
            continue
        try:
            return record, _as_mounted(wanted, record)
        except BaseException:
            release_mount(record.mountpoint)
            raise
    resolved = resolve_to_boot(wanted, ahead, allow_revoked=allow_revoked, tell=tell)
    return mount_for_instance(resolved, options, ahead), resolved


def resolve_to_boot(
    wanted: Reference, ahead: AheadWish, *, allow_revoked: bool, tell: Callable[[str], None]
) -> Resolved:
    """What a reference means now, its warnings told and the profile that is wished for checked."""
    from oscirc_remote.resolving import resolve_for_boot

    resolved = resolve_for_boot(wanted, allow_revoked=allow_revoked)
    for warning in resolved.warnings:
        tell(warning)
    ahead.check_profile(resolved)
    return resolved


def _as_mounted(wanted: Reference, record: MountRecord) -> Resolved:
    """What a driver resolved a reference to: it has judged it, and written the receipt that this reads."""
    from oscirc_remote.resolving import resolve

    exact = references.parse(f"{record.remote}:{record.image}@sha256:{record.manifest_digest}")
    return replace(resolve(exact, offline=True, allow_revoked=True), reference=wanted)


def _is_any_mounted(image: str) -> bool:
    from oscirc_fusedriver import records

    return any(record.image == image and record.process.alive() for record in records.list_records())


def _automatic_mount(name: str) -> Path:
    """An empty directory to mount at, unless something is there."""
    place = automatic_mounts() / name[:16]
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):  # it may be there, or be a dead mount, which `mount` cleans up
        place.mkdir(mode=0o700)
    return place


def mount_for_instance(resolved: Resolved, options: MountOptions, ahead: AheadWish = AS_PREFERRED) -> MountRecord:
    """A live mount of this very disk: one that is there already, else one of our own below the runtime directory."""
    from oscirc_fusedriver import mounting

    existing = live_mount_of(resolved.manifest_digest.hex())
    if existing is not None:
        return existing
    place = _automatic_mount(resolved.manifest_digest.hex())
    try:
        return mounting.mount(lambda: image_reader_of(resolved, options, ahead), place, options=options)
    except BusyError:
        concurrent = live_mount_of(resolved.manifest_digest.hex())  # another boot was quicker
        if concurrent is None:
            raise
        return concurrent


def live_mount_of(manifest_digest: str) -> MountRecord | None:
    """A mount of this disk whose driver answers, if any."""
    from oscirc_fusedriver import control_client, records

    for record in records.list_records():
        if record.manifest_digest == manifest_digest and record.process.alive():
            with contextlib.suppress(OscircError):
                control_client.status(record)
                return record
    return None


def automatic_mounts() -> Path:
    """Where `oscirc boot` mounts what nobody mounted before."""
    return paths.runtime_directory() / "images"


def reads_failer(mountpoint: str) -> Callable[[], None]:
    """Tells the driver of a mount to fail its outstanding reads; a mount that is gone needs no telling."""
    return lambda: _fail_reads(mountpoint, enabled=True)


def _fail_reads(mountpoint: str, *, enabled: bool) -> None:
    from oscirc_fusedriver import control_client, records

    record = records.find(Path(mountpoint))
    if record is not None:
        with contextlib.suppress(OscircError):
            control_client.fail_reads(record, enabled=enabled)


def release_mount(mountpoint: str) -> None:
    """Unmount what `oscirc boot` mounted by itself, once no running instance uses it; else let its reads wait again."""
    from oscirc_fusedriver import unmounting
    from oscirc_vmlaunch import launching
    from oscirc_vmlaunch.instances import Instances

    place = Path(mountpoint)
    users = [instance for instance in Instances().load_all() if instance.record.mount_point == mountpoint]
    if place.parent != automatic_mounts() or any(launching.find(instance) is not None for instance in users):
        _fail_reads(mountpoint, enabled=False)
        return
    with contextlib.suppress(OscircError):
        unmounting.unmount(place, lazy=True)
        with contextlib.suppress(OSError):
            place.rmdir()
