"""From a reference to a verified manifest: which disk is meant, and may it be used.

The rules (design, section 4):

- *Resolving and updating need freshness.* `resolve` refreshes; what is unreachable, expired, rolled back or badly
  signed is refused.
- *Booting does not.* `resolve_for_boot` tries the same for a few seconds, and else takes the receipt of what was
  verified here before, with a warning that says why and how old it is.
- *A withdrawal is obeyed.* A version yanked for security, or whose publisher or image the repository no longer
  delegates or lists, raises `WithdrawnError` (also from a receipt that knows of it) unless `allow_revoked`. Any other
  yank warns.
- A version that its publisher *deleted* is not there for who never had it; who did may use it, with a warning.
- `@sha256:` resolves by itself: the manifest is verified by that digest alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from oscirc_blockstore.about import About
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import (
    BusyError,
    DocumentRefusedError,
    IntegrityError,
    NotFoundError,
    OscircError,
    TransportError,
    TrustError,
    UsageError,
    WithdrawnError,
)
from oscirc_blockstore.image_index import Deleted, ImageIndex, ImageVersion, Yank
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_remote import references
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.receipts import Receipt, ReceiptBook
from oscirc_remote.references import Reference
from oscirc_remote.remotes import Remote, Remotes
from oscirc_remote.session import SESSION_S, SHARE_S, Session, utc_now
from oscirc_remote.sources import OpenDocuments

BOOT_S = 5.0  # how long a boot looks for news when it has something to boot without any

_ALLOW = "--allow-revoked uses it all the same"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A reference with its verified manifest. `fresh`: the repository said so just now, and until `expires`.

    `about` is what its publisher says of the image, None where the image's index was not asked for. `version_label`
    is empty where a digest names a manifest that no known version has; `expires` is None where nothing but the digest
    was asked. `leaving`: its publisher deleted it; it is served for a while yet, to be fetched by who needs it.
    """

    remote: Remote
    reference: Reference
    publisher: str
    image: str
    version_label: str
    manifest_digest: Digest
    manifest: Manifest
    fresh: bool
    warnings: tuple[str, ...]
    expires: datetime | None
    about: About | None = None
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    """One question: a reference, the remote it is asked of, what is known here already, and what the user allows."""

    reference: Reference
    remote: Remote
    book: ReceiptBook
    deadline: Deadline
    allow_revoked: bool

    def answer(
        self,
        label: str,
        digest: Digest,
        manifest: Manifest,
        *,
        fresh: bool = False,
        warnings: tuple[str, ...] = (),
        expires: datetime | None = None,
        about: About | None = None,
    ) -> Resolved:
        """The answer, unless the manifest is another image's."""
        reference = self.reference
        if (manifest.publisher, manifest.image) != (reference.publisher, reference.image):
            raise DocumentRefusedError(
                f"the manifest that {reference} leads to is that of {manifest.publisher}/{manifest.image}",
                hint="the publisher's index, or the digest, names another image's disk",
            )
        return Resolved(
            self.remote,
            reference,
            reference.publisher,
            reference.image,
            label,
            digest,
            manifest,
            fresh,
            warnings,
            expires,
            about,
        )


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves against the user's remotes. The fields are the edges of the world: files, network, calendar."""

    remotes: Remotes = field(default_factory=Remotes)
    open_documents: OpenDocuments = HttpDocumentSource
    now: Callable[[], datetime] = utc_now

    def resolve(
        self,
        reference: Reference | str,
        *,
        offline: bool = False,
        allow_revoked: bool = False,
        timeout_s: float = SESSION_S,
    ) -> Resolved:
        """The manifest that a reference means now; with `offline`, as far as this workstation knows."""
        case = self._case(reference, Deadline.after(timeout_s), allow_revoked=allow_revoked, offline=offline)
        if case.reference.digest is not None:
            return self._by_digest(case, case.reference.digest, offline=offline)
        if offline:
            return self._from_receipt(case, "the repository was not asked")
        return self._online(case)

    def resolve_for_boot(
        self, reference: Reference | str, *, allow_revoked: bool = False, timeout_s: float | None = None
    ) -> Resolved:
        """Like `resolve`, but what was verified here before boots when the repository cannot or may not be used.

        Waits for the network for `timeout_s`, unless given: shortly where there is a receipt, as `resolve` else.
        """
        if timeout_s is None:
            timeout_s = BOOT_S if self._has_receipt(reference) else SESSION_S
        try:
            return self.resolve(reference, allow_revoked=allow_revoked, timeout_s=timeout_s)
        except WithdrawnError:
            raise
        except (TransportError, TrustError, IntegrityError, BusyError) as error:
            problem: OscircError = error
        try:
            case = self._case(reference, Deadline.after(0), allow_revoked=allow_revoked, offline=True)
            return self._from_receipt(case, str(problem))
        except NotFoundError:
            raise problem from None

    def remote_of(self, reference: Reference, *, timeout_s: float = SESSION_S) -> Remote:
        """The remote that a reference means, as `resolve` finds it."""
        return self._case(reference, Deadline.after(timeout_s), allow_revoked=False, offline=False).remote

    def _has_receipt(self, reference: Reference | str) -> bool:
        try:
            case = self._case(reference, Deadline.after(0), allow_revoked=False, offline=True)
        except (NotFoundError, UsageError):
            return False
        return case.book.find(case.reference) is not None

    def _case(self, reference: Reference | str, deadline: Deadline, *, allow_revoked: bool, offline: bool) -> _Case:
        if isinstance(reference, str):
            reference = references.parse(reference)

        def refresh(remote: Remote) -> None:
            if offline:
                return
            unknown = contextlib.suppress(TransportError, TrustError, IntegrityError, BusyError)
            with unknown, self._session(remote, deadline.at_most(SHARE_S)) as session:
                session.refresh()

        if reference.remote:
            remote = self.remotes.load(reference.remote)
        else:
            remote = self.remotes.find_publisher(reference.publisher, refresh=refresh)
        return _Case(reference, remote, ReceiptBook(remote.directory), deadline, allow_revoked)

    def _session(self, remote: Remote, deadline: Deadline) -> Session:
        return Session(remote, open_documents=self.open_documents, deadline=deadline, now=self.now)

    def _online(self, case: _Case) -> Resolved:
        reference, book = case.reference, case.book
        with self._session(case.remote, case.deadline) as session:
            session.repository_facts()
            try:
                index = session.image_index(reference.publisher, reference.image)
            except NotFoundError as error:
                if not any(book.of(reference.publisher, reference.image)):
                    raise
                gone = f"{reference.name} was withdrawn from remote {case.remote.name}: {error}"
                if not case.allow_revoked:
                    raise WithdrawnError(gone, hint=f"it was verified here before; {_ALLOW}") from None
                return replace(self._from_receipt(case, gone), leaving=True)
            book.learn(index)
            deleted = index.tombstone(reference.version) if reference.version else None
            if deleted is not None and book.find(reference) is not None:
                told = judge_deletion(f"{reference.name}@{deleted.label}", deleted, allow_revoked=case.allow_revoked)
                return replace(self._from_receipt(case, "", told), leaving=True)
            version = index.version(reference.version) if reference.version else index.channel(reference.channel)
            yank = judge_yank(f"{reference.name}@{version.label}", version.yanked, allow_revoked=case.allow_revoked)
            raw, manifest = self._manifest(session, book, version.manifest)
            expires = session.expires(reference.publisher)
            notes = tuple(f"passed over: {note}" for note in session.notes)
            answer = case.answer(
                version.label,
                version.manifest,
                manifest,
                fresh=True,
                warnings=notes + yank,
                expires=expires,
                about=index.about,
            )
            if raw is not None:
                book.keep_manifest(version.manifest, raw)
            book.write(self._receipt(index, version, expires))
        return answer

    def _receipt(self, index: ImageIndex, version: ImageVersion, expires: datetime) -> Receipt:
        channels = tuple(name for name, label in index.channels.items() if label == version.label)
        verified = self.now().replace(microsecond=0)
        return Receipt(
            index.publisher, index.image, version.label, version.manifest, channels, verified, expires, version.yanked
        )

    def _manifest(self, session: Session, book: ReceiptBook, digest: Digest) -> tuple[bytes | None, Manifest]:
        """The manifest of that digest, with its bytes when they are new here."""
        kept = book.manifest(digest)
        if kept is not None:
            return None, kept
        return session.fetch_document(
            manifest_path(digest), MAX_MANIFEST_BYTES, lambda raw: (raw, parse_verified(raw, digest))
        )

    def _by_digest(self, case: _Case, digest: Digest, *, offline: bool) -> Resolved:
        """Needs nobody's word but the digest; what a receipt knows of a withdrawal is obeyed all the same."""
        if case.book.find(case.reference) is not None:
            return self._from_receipt(case, "")
        manifest = case.book.manifest(digest)
        if manifest is not None:
            return case.answer("", digest, manifest)
        if offline:
            raise NotFoundError(f"{case.reference} was not used here before, and the repository may not be asked")
        with self._session(case.remote, case.deadline) as session:
            raw, manifest = self._manifest(session, case.book, digest)
            answer = case.answer("", digest, manifest)
            if raw is not None:
                case.book.keep_manifest(digest, raw)
        return answer

    def _from_receipt(self, case: _Case, why: str, told: tuple[str, ...] = ()) -> Resolved:
        receipt = case.book.find(case.reference)
        manifest = None if receipt is None else case.book.manifest(receipt.manifest)
        if receipt is None or manifest is None:
            raise NotFoundError(
                f"{case.reference} was never resolved on this machine", hint="resolve it once with the network at hand"
            )
        publishers = case.remote.known_publishers()
        if publishers is not None and receipt.publisher not in publishers and not case.allow_revoked:
            raise WithdrawnError(
                f"remote {case.remote.name} no longer delegates to publisher {receipt.publisher}",
                hint=f"{receipt.publisher}/{receipt.image}@{receipt.version} was verified here before; {_ALLOW}",
            )
        name = f"{case.reference.name}@{receipt.version}"
        warnings = told + judge_yank(name, receipt.yanked, allow_revoked=case.allow_revoked)
        if why:
            age = _told((self.now() - receipt.verified).days)
            old = f"using {name} as verified {age} ({receipt.verified:%Y-%m-%d}), not as the repository says now: {why}"
            warnings = (old, *warnings)
        return case.answer(receipt.version, receipt.manifest, manifest, warnings=warnings, expires=receipt.expires)


def resolve(reference: Reference | str, *, offline: bool = False, allow_revoked: bool = False) -> Resolved:
    """`Resolver.resolve` with this user's remotes, over the network."""
    return Resolver().resolve(reference, offline=offline, allow_revoked=allow_revoked)


def resolve_for_boot(reference: Reference | str, *, allow_revoked: bool = False) -> Resolved:
    """`Resolver.resolve_for_boot` with this user's remotes, over the network."""
    return Resolver().resolve_for_boot(reference, allow_revoked=allow_revoked)


def _told(days: int) -> str:
    return "today" if days <= 0 else "yesterday" if days == 1 else f"{days} days ago"


def judge_deletion(name: str, deleted: Deleted, *, allow_revoked: bool) -> tuple[str, ...]:
    """The warning that a deletion deserves; raises `WithdrawnError` where it had been yanked for security."""
    why = f": {deleted.why}" if deleted.why else ""
    said = f"{name} was deleted by its publisher on {deleted.date[:10]}{why}"
    if deleted.security and not allow_revoked:
        raise WithdrawnError(f"{said} (withdrawn for security before)", hint=f"take another version; {_ALLOW}")
    return (f"{said}; the repository serves it for about a month: a mount fetches all the rest, as oscirc pull does",)


def judge_yank(name: str, yanked: Yank | None, *, allow_revoked: bool) -> tuple[str, ...]:
    """The warning that a yank deserves; raises `WithdrawnError` for one for security unless it is allowed."""
    if yanked is None:
        return ()
    said = f"{name} was yanked by its publisher on {yanked.date[:10]}: {yanked.why}"
    if yanked.security and not allow_revoked:
        raise WithdrawnError(f"{said} (for security)", hint=f"take another version; {_ALLOW}")
    return (said,)
