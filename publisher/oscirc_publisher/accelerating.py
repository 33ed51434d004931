"""Puts a profile and its bundle beside a released version: built here, uploaded, listed by the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from oscirc_blockstore import bundle
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator
from oscirc_blockstore.bundle_making import Load, Progress, built_bundle
from oscirc_blockstore.digests import Digest, digest_of, parse_hex, verify
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.profile import MAX_PROFILE_BYTES, Profile, parse
from oscirc_publisher.building import default_workers
from oscirc_publisher.rest import Body, RestClient

_PIECE_BYTES = 256 << 10
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class VersionName:
    """A released version, as the API names it."""

    publisher: str
    image: str
    version: str

    @property
    def path(self) -> str:
        """Below the API."""
        return f"images/{self.publisher}/{self.image}/versions/{self.version}"


@dataclass(frozen=True, slots=True)
class Accelerated:
    """What was put there: the bundle's length, the blocks in it and their raw size in bytes."""

    name: str
    bundle_bytes: int
    blocks: int
    raw_bytes: int
    uploaded: bool


def add_profile(
    client: RestClient,
    name: VersionName,
    manifest_digest: Digest,
    manifest: Manifest,
    profile: Profile,
    load: Load,
    *,
    level: int = bundle.DEFAULT_LEVEL,
    progress: Progress = lambda _done, _total: None,
) -> Accelerated:
    """Build the bundle of a profile and put both there, unless the very same are there already.

    A profile that was recorded on another version is taken for this one: positions of one version's boot are good
    advice for the next.
    """
    profile = replace(profile, manifest=manifest_digest)
    listed = {
        (each.get("kind"), each.get("name"), each.get("sha256"))
        for each in _objects(client.call_json("GET", f"{name.path}/accelerators"))
    }
    raw = profile.serialise()
    with built_bundle(profile, manifest, load, level=level, workers=default_workers(), progress=progress) as built:
        recorded = Accelerator(PROFILE, profile.name, digest_of(raw), len(raw))
        new = False
        for accelerator, body in (
            (built.accelerator, Body(built.accelerator.length, lambda: _pieces(built.file))),
            (recorded, Body.of(raw)),
        ):
            if (accelerator.kind, accelerator.name, accelerator.sha256.hex()) not in listed:
                path = f"{name.path}/accelerators/{accelerator.kind}/{accelerator.name}"
                client.call("PUT", f"{path}?sha256={accelerator.sha256.hex()}", body, timeout_s=_TIMEOUT_S)
                new = True
        return Accelerated(profile.name, built.accelerator.length, built.blocks, built.raw_bytes, new)


def listed_accelerators(client: RestClient, name: VersionName) -> list[Accelerator]:
    """What the server lists for a released version, of every kind."""
    found = []
    for each in _objects(client.call_json("GET", f"{name.path}/accelerators")):
        kind, called, length, index_length = (each.get(key) for key in ("kind", "name", "length", "index_length"))
        if not (isinstance(kind, str) and isinstance(called, str)):
            raise DocumentRefusedError("the server lists an accelerator without kind or name")
        if not (isinstance(length, int) and isinstance(index_length, int)):
            raise DocumentRefusedError("the server lists an accelerator without lengths")
        found.append(Accelerator(kind, called, parse_hex(each.get("sha256")), length, index_length))
    return found


def has_profile(client: RestClient, name: VersionName, profile: str) -> bool:
    """Whether the version is released and has a profile and a bundle of that name."""
    try:
        answer = client.call_json("GET", f"{name.path}/accelerators")
    except NotFoundError:
        return False
    kinds = {each.get("kind") for each in _objects(answer) if each.get("name") == profile}
    return {PROFILE, BUNDLE} <= kinds


def listed_profile(client: RestClient, name: VersionName, manifest_digest: Digest, profile: str) -> Profile:
    """The profile of that name that the server has for the version; it is advice, whoever made it."""
    for each in _objects(client.call_json("GET", f"{name.path}/accelerators")):
        if (each.get("kind"), each.get("name")) == (PROFILE, profile):
            digest = parse_hex(each.get("sha256"))
            raw = client.fetch(Accelerator(PROFILE, profile, digest, 1).path, MAX_PROFILE_BYTES)
            verify(raw, digest)
            found = parse(raw)
            if (found.manifest, found.name) != (manifest_digest, profile):
                raise DocumentRefusedError(f"the server's profile {profile} is of another disk or another name")
            return found
    raise NotFoundError(
        f"{name.publisher}/{name.image}@{name.version} has no profile called {profile}",
        hint="see which there are: oscirc profile list",
    )


def _objects(answer: dict[str, object]) -> list[dict[str, object]]:
    listed = answer.get("accelerators")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        yield piece
