"""Brings one object of the tree to this mirror, verified as its kind asks; synchronous, for threads of `pull_through`.

What cannot be had is an error: `NotServedError` where no source has it, or none has it right; `UnreachableError` where
none answers. What the disk has no room for is returned instead of being stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import Accelerator, Listing
from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    IntegrityError,
    LocalError,
    NotServedError,
    OscircError,
)
from oscirc_blockstore.image_index import MAX_INDEX_BYTES
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_remote.rate_limits import RateLimit
from oscirc_server.accelerator_bounds import limit_bytes
from oscirc_server.metadata import MAX_ROLE_BYTES
from oscirc_server.mirroring import older_roots
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.frames import FrameStore
from oscirc_server.mirroring.publication import publish, put
from oscirc_server.mirroring.quota import TreeQuota
from oscirc_server.mirroring.tree_objects import Kind, TreeObject
from oscirc_server.mirroring.upstream import Upstream
from oscirc_server.mirroring.verified import VerifiedMetadata

BLOCK_S = 15.0
_UNKEPT = 64
_KNOWN_ACCELERATORS = 10_000
_log = logging.getLogger(__name__)


class OnDemand:
    """One for a running mirror; safe for threads. Close it when done."""

    def __init__(
        self,
        directory: MirrorDirectory,
        quota: TreeQuota,
        *,
        rate_limit: RateLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self.fetched = 0
        self._quota = quota
        self._clock = clock
        self._frames = FrameStore(directory.storage)
        self._upstream = Upstream(directory.remote, directory.sources, rate_limit=rate_limit, on_frame=self._keep)
        self._verified: VerifiedMetadata | None = None
        self._lock = threading.Lock()
        self._unkept: OrderedDict[Digest, bytes] = OrderedDict()
        self._accelerators: OrderedDict[Digest, tuple[Accelerator, Digest]] = (
            OrderedDict()
        )  # and the disk that it is of
        self._listings_read = False
        self._roots_copied = False

    def refresh(self) -> None:
        """Verify the newest metadata that there is, and let readers see it."""
        verified = self._upstream.refresh()
        if publish(self.directory, verified):
            self._verified = verified
        if not self._roots_copied:
            older_roots.copy(self.directory, self._upstream)
            self._roots_copied = True

    def is_sound(self, wanted: TreeObject) -> bool:
        """Whether a block file that somebody complains of is what it should be; else it is gone now."""
        return wanted.digest is not None and self._frames.load(wanted.digest) is not None

    def bring(self, wanted: TreeObject) -> bytes | None:
        """Have it in the tree, or return its bytes where there is no room for it."""
        with self._lock:
            self.fetched += 1
        try:
            return self._bring(wanted)
        except IntegrityError as error:
            _log.error("wrong bytes were offered", extra={"path": wanted.path, "error": str(error)})
            raise NotServedError(f"no source serves a right {wanted.path}") from None

    def _bring(self, wanted: TreeObject) -> bytes | None:
        if wanted.kind is Kind.ROLE:
            return self._role(wanted)
        if wanted.digest is None or wanted.kind in (Kind.LISTING, Kind.HINT):
            return self._listing(wanted)
        if wanted.kind is Kind.BLOCK:
            self._upstream.block(wanted.digest, None, BLOCK_S)
            with self._lock:
                return self._unkept.pop(wanted.digest, None)
        if wanted.kind is Kind.ACCELERATOR:
            self._accelerator(wanted.digest)
            return None
        raw = self._upstream.named(wanted.path, wanted.digest, MAX_INDEX_BYTES)
        if raw is None:
            raise NotServedError(f"no source has {wanted.path}")
        return self._store(wanted.path, raw)

    def _role(self, wanted: TreeObject) -> bytes | None:
        """A publisher's role of the version that the verified snapshot names, and of no other."""
        verified = self._verified
        meta = None if verified is None else verified.metas.get(wanted.role)
        if verified is None or meta is None or meta.version != wanted.version:
            raise NotServedError(f"{wanted.path} is not part of the repository's newest state")
        role = self._upstream.document(wanted.path, MAX_ROLE_BYTES, lambda raw: verified.judge_role(wanted.role, raw))
        if role is None:
            raise NotServedError(f"no source has {wanted.path}")
        return self._store(wanted.path, role.raw)

    def _listing(self, wanted: TreeObject) -> bytes | None:
        """What the source says now; it is remembered which accelerators are listed."""
        hint = wanted.kind is Kind.HINT

        def judged(raw: bytes) -> tuple[bytes, tuple[Listing, ...]]:
            if hint:
                found = accelerators.parse_hint(raw)
                if (found.publisher, found.image) != (wanted.role, wanted.image):
                    raise DocumentRefusedError("the hint is of another image")
                return raw, tuple(found.channels.values())
            listing = accelerators.parse_listing(raw)
            if listing.manifest != wanted.digest:
                raise DocumentRefusedError("the listing is of another disk")
            return raw, (listing,)

        most = accelerators.MAX_HINT_BYTES if hint else accelerators.MAX_LISTING_BYTES
        found = self._upstream.document(wanted.path, most, judged)
        if found is None:
            raise NotServedError(f"no source has {wanted.path}")
        raw, listings = found
        self._know(listings)
        if self.directory.storage.get(wanted.path, len(raw)) != raw:
            self.directory.storage.replace(wanted.path, raw)
        return None

    def listed(self, digest: Digest) -> Accelerator | None:
        """The accelerator of that digest, where a listing that this mirror served names it."""
        with self._lock:
            found = self._accelerators.get(digest)
            read_before, self._listings_read = self._listings_read, True
        if found is None and not read_before:  # those of an earlier run
            for file in self.directory.storage.files("accel"):
                if file.path.endswith(".json") and file.path.count("/") == 1:
                    raw = self.directory.storage.get(file.path, accelerators.MAX_LISTING_BYTES)
                    try:
                        self._know((accelerators.parse_listing(raw or b""),))
                    except IntegrityError:
                        continue
            with self._lock:
                found = self._accelerators.get(digest)
        return None if found is None else found[0]

    def _know(self, listings: tuple[Listing, ...]) -> None:
        with self._lock:
            for listing in listings:
                for each in listing.accelerators:
                    self._accelerators[each.sha256] = (each, listing.manifest)
            while len(self._accelerators) > _KNOWN_ACCELERATORS:
                self._accelerators.popitem(last=False)

    def _accelerator(self, digest: Digest) -> None:
        listed = self.listed(digest)
        if listed is None:
            raise NotServedError(f"no listing names accel/{digest.hex()}")
        with self._lock:
            disk = self._accelerators[digest][1]
        if listed.length > limit_bytes(self._manifest(disk), listed.kind):
            raise DocumentRefusedError(f"{listed.path} is listed longer than one of that disk can be")
        if self._quota.limit_bytes is not None and listed.length > self._quota.limit_bytes // 2:
            raise NotServedError(f"{listed.path} is too long for this mirror's quota")
        with self.directory.scratch_file(listed.length) as file:
            self._upstream.accelerator(listed, file)
            self.directory.storage.replace_from(listed.path, file)
        self._quota.added(listed.length)

    def _manifest(self, digest: Digest) -> Manifest:
        raw = self.directory.storage.get(manifest_path(digest), MAX_MANIFEST_BYTES)
        if raw is None:
            raw = self._upstream.named(manifest_path(digest), digest, MAX_MANIFEST_BYTES)
        if raw is None:
            raise NotServedError(f"no source has the manifest {digest.hex()}")
        return parse_verified(raw, digest)

    def _store(self, path: str, raw: bytes) -> bytes | None:
        try:
            put(self.directory.storage, path, raw)
        except LocalError as error:
            _log.error("not stored", extra={"path": path, "error": str(error)})
            return raw
        return None

    def _keep(self, digest: Digest, frame: bytes) -> None:
        try:
            if self.directory.storage.put_if_absent(block_path(digest), frame):
                self._quota.added(len(frame))
        except (OscircError, OSError) as error:
            _log.error("not stored", extra={"path": block_path(digest), "error": str(error)})
            with self._lock:
                self._unkept[digest] = frame
                while len(self._unkept) > _UNKEPT:
                    self._unkept.popitem(last=False)

    def close(self) -> None:
        """What is under way ends."""
        self._upstream.cancellation.cancel("this mirror is being stopped")
        self._upstream.close()
