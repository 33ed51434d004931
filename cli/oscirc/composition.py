"""Composes the rooms for commands: remotes with publishing clients, images with mounts, mounts with instances."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc.options import passphrase, token
from oscirc_blockstore.errors import OscircError, TransportError, UsageError
from oscirc_blockstore.names import check_publisher
from oscirc_remote import references
from oscirc_remote.remotes import Remote, Remotes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from oscirc_publisher.releasing import Signatory
    from oscirc_publisher.rest import RestClient


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


def parse_publisher(text: str) -> tuple[Remote, str]:
    """`[REMOTE:]NAME`."""
    remote, colon, name = text.rpartition(":")
    check_publisher(name)
    return only_remote(remote if colon else None), name


@contextlib.contextmanager
def rest_client(remote: Remote, token_file: Path | None, *, authorised: bool = True) -> Iterator[RestClient]:
    """A client of the remote's REST API, with the stored token unless another is given."""
    from oscirc_publisher.rest import RestClient

    bearer = token(remote.token(), remote.name, token_file) if authorised else None
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
) -> Iterator[Signatory]:
    """A publisher with its key, ready to sign in the remote that a reference names."""
    from oscirc_publisher.releasing import Signatory
    from oscirc_publisher.signing import KeyRing

    ring = KeyRing()
    ring.show(key)  # an unknown name is said before a passphrase is asked for
    loaded = ring.load(key, passphrase(passphrase_file, what=f"the key {key}"))
    with rest_client(wanted.remote, token_file) as client:
        yield Signatory(client, wanted.publisher, loaded, also_trusted=also_trusted)


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


def reads_failer(mountpoint: str) -> Callable[[], None]:
    """Tells the driver of a mount to fail its outstanding reads; a mount that is gone needs no telling."""

    def fail() -> None:
        from oscirc_fusedriver import control_client

        with contextlib.suppress(OscircError):
            control_client.fail_reads(Path(mountpoint), enabled=True)

    return fail


def release_mount(mountpoint: str) -> None:
    """Unmount what `oscirc boot` mounted by itself, once no running instance uses it."""
    raise NotImplementedError(mountpoint)
