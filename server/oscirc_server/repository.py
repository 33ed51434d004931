"""The TUF repository: what is in force, and the one way to change it.

`changing` is that way. It holds the writer's lock, opens one durable transaction, lets the caller add roles and
documents, signs a new snapshot and timestamp over the result, commits, and only then projects the change onto the
tree, `timestamp.json` last. A crash before the commit leaves nothing; a crash after it leaves a tree that
any process completes, told by `pending_files`. A version number is the highest ever stored plus one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import NotFoundError, OscircError, UsageError
from oscirc_blockstore.trust import ONLINE_LIFETIME_S, ONLINE_RENEWAL_S
from oscirc_server import pending_files
from oscirc_server.database import insert_new
from oscirc_server.disavowed import disavowed, next_unused
from oscirc_server.errors import NotInitialisedError, OnlineKeyMissingError, SupersededError
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES, signers_for
from oscirc_server.locks import RESIGNER, WRITER, Held
from oscirc_server.metadata import SignedMetadata, expiry, parse, sign_snapshot, sign_timestamp
from oscirc_server.models import Document, ManifestRow, SignedRole
from oscirc_server.projection import Projected, project, project_all
from oscirc_server.tree_paths import TIMESTAMP_PATH
from oscirc_server.tuf_api import CryptoSigner, Metadata, Root, Targets

CLOCK_SLACK_S = 300
LAGGING_S = 60

_log = logging.getLogger(__name__)


def current(session: Session, role: str) -> SignedRole | None:
    """The highest version of a role, or None when it never had one."""
    return session.scalar(
        select(SignedRole).where(SignedRole.role == role).order_by(SignedRole.version.desc()).limit(1)
    )


def in_force(session: Session, role: str) -> SignedRole:
    """The highest version of a role that every repository has."""
    row = current(session, role)
    if row is None:
        raise NotInitialisedError(f"this repository has no {role} role", hint="make one: oscirc serve init --data DIR")
    return row


def current_version(session: Session, role: str) -> int:
    """The highest version number of a role, 0 when it never had one."""
    return session.scalar(select(func.max(SignedRole.version)).where(SignedRole.role == role)) or 0


def current_root(session: Session) -> Metadata[Root]:
    """The root in force."""
    return parse(in_force(session, "root").raw, Root, "the root")


def current_targets(session: Session) -> Metadata[Targets]:
    """The targets role in force."""
    return parse(in_force(session, "targets").raw, Targets, "the targets role")


def latest_roles(session: Session) -> list[SignedRole]:
    """The highest version of every role that there is, ordered by name."""
    newest = select(SignedRole.role, func.max(SignedRole.version).label("version")).group_by(SignedRole.role).subquery()
    query = select(SignedRole).join(
        newest, (SignedRole.role == newest.c.role) & (SignedRole.version == newest.c.version)
    )
    return list(session.scalars(query.order_by(SignedRole.role)))


class Change:
    """One change of the repository, under way; `snapshot_version` is the snapshot that will show it."""

    def __init__(self, installation: Installation, session: Session) -> None:
        self.session = session
        self.now_s = installation.now_s()
        self.snapshot_version = 0
        self._timestamp_version = 0
        self.count_from(current_version(session, "snapshot"), current_version(session, "timestamp"))
        self._keys = installation.layout.keys
        self._new = Projected()

    def add_role(self, signature: SignedMetadata) -> None:
        """Store one verified version of a role."""
        self.session.add(
            SignedRole(
                role=signature.role,
                version=signature.version,
                raw=signature.raw,
                expires_s=signature.expires_s,
                signed_s=self.now_s,
            )
        )
        self.session.flush()
        self._new.roles.append(signature)

    def forget_role(self, role: str, version: int) -> None:
        """Project nothing of a version whose rows were rolled back."""
        self._new.roles = [item for item in self._new.roles if (item.role, item.version) != (role, version)]

    def add_document(self, path: str, raw: bytes) -> None:
        """Store a TUF target; the same one again changes nothing."""
        insert_new(self.session, Document, [{"path": path, "raw": raw, "created_s": self.now_s}])
        self._new.documents[path] = raw

    def add_manifest(self, digest: bytes, raw: bytes, stored_bytes: int) -> None:
        """Store a manifest; the same one again changes nothing."""
        row = {"digest": digest, "raw": raw, "stored_bytes": stored_bytes, "created_s": self.now_s}
        insert_new(self.session, ManifestRow, [row])
        self._new.manifests[digest] = raw

    def count_from(self, snapshot: int, timestamp: int) -> None:
        """Sign the numbers after these, but for those that a thief used up."""
        used_up = disavowed(self.session)
        self.snapshot_version = next_unused(snapshot, "snapshot", used_up)
        self._timestamp_version = next_unused(timestamp, "timestamp", used_up)

    def stay_above(self, *, snapshot: int, timestamp: int) -> None:
        """Use no version up to these: they have been seen outside the database."""
        self.count_from(max(self.snapshot_version - 1, snapshot), max(self._timestamp_version - 1, timestamp))

    def sign_online(self) -> Projected:
        """Sign a snapshot of all roles and a timestamp, with the keys that the root in force names."""
        root = current_root(self.session).signed
        expires = expiry(self.now_s, ONLINE_LIFETIME_S)
        roles = {
            row.role: (row.version, row.raw)
            for row in latest_roles(self.session)
            if row.role not in ("root", "snapshot", "timestamp")
        }
        snapshot = sign_snapshot(
            self.snapshot_version,
            expires,
            roles,
            self._online_signers(root, "snapshot"),
        )
        self.add_role(snapshot)
        timestamp = sign_timestamp(
            self._timestamp_version,
            expires,
            snapshot,
            self._online_signers(root, "timestamp"),
        )
        self.add_role(timestamp)
        return self._new

    def _online_signers(self, root: Root, role: str) -> list[CryptoSigner]:
        """The server's own fault when it has none, whoever asked for the change."""
        try:
            return signers_for(self._keys, role, root.roles[role], None)
        except (NotFoundError, UsageError):
            raise OnlineKeyMissingError(
                f"this server lacks the {role} key that the root in force names",
                hint=f"copy {self._keys} from a server that has it, or make new ones: oscirc serve rotate online",
            ) from None


@contextlib.contextmanager
def changing(installation: Installation) -> Iterator[Change]:
    """Change the repository: all that the block adds becomes visible at once when it ends well, else nothing does."""
    try:
        with installation.locks.held(WRITER) as held:
            with installation.database.write(durable=True) as session:
                change = Change(installation, session)
                yield change
                new = change.sign_online()
                behind = bool(pending_files.mark(session, [TIMESTAMP_PATH], change.now_s))
            _project_committed(installation, held, None if behind else new)
    except SupersededError:  # the change stands; the other may have been overtaken by what this one sent last
        with contextlib.suppress(OscircError):
            complete_projection(installation)
        raise


def _project_committed(installation: Installation, held: Held, new: Projected | None) -> int:
    """Bring the tree up to date, with a change or altogether; on an error it follows later. Returns files written."""
    written = 0
    try:
        with installation.database.read() as session:
            marks = pending_files.marked(session, TIMESTAMP_PATH)
        if new is None:
            with installation.database.read() as session:
                written = project_all(installation.storage, session, held.confirm)
        else:
            project(installation.storage, new, held.confirm)
        held.confirm()  # else the timestamp may have gone out after another's
        pending_files.done(installation.database, marks)
        installation.projection_pending = False
    except OscircError as error:
        installation.projection_pending = True
        _log.error("projection failed", extra={"error": str(error)})
        raise
    return written


def project_everything(installation: Installation) -> int:
    """At the start: every file of signed metadata as the database has it; returns how many had to be written."""
    with installation.locks.held(WRITER) as held:
        return _project_committed(installation, held, None)


def complete_projection(installation: Installation) -> None:
    """Write what an error, another process's death or a superseded writer kept from the tree, if anything."""
    with installation.database.read() as session:
        waiting = bool(pending_files.marked(session, TIMESTAMP_PATH))
        newest = in_force(session, "timestamp").raw
    if not waiting and installation.storage.get(TIMESTAMP_PATH, len(newest)) == newest:
        installation.projection_pending = False
        return
    written = project_everything(installation)
    if written:
        _log.warning("the tree was completed from the database", extra={"files": written})


def is_lagging(installation: Installation, session: Session) -> bool:
    """Whether the tree lags behind the database for longer than it takes to write it."""
    oldest_s = pending_files.oldest_s(session)
    return installation.projection_pending or (oldest_s is not None and oldest_s + LAGGING_S <= installation.now_s())


def resign_online(installation: Installation) -> int:
    """Renew snapshot and timestamp; returns the snapshot's version."""
    with changing(installation) as change:
        pass
    return change.snapshot_version


class NotDueError(Exception):
    """Somebody else has renewed meanwhile: ends a change before it signs anything."""


def require_due(change: Change) -> None:
    """Raise `NotDueError` unless snapshot and timestamp are still due, now that nobody else can renew them."""
    if not online_due(change.session, change.now_s):
        raise NotDueError


def renew_online(installation: Installation) -> int | None:
    """Renew snapshot and timestamp if they are due; the snapshot's version, None when they were not, or not any more.

    Several servers may ask at the same moment: one gets the lock and looks again, the others leave it to that one.
    """
    with installation.database.read() as session:
        if not online_due(session, installation.now_s()):
            return None
    with installation.locks.try_held(RESIGNER) as mine:
        if mine is None:
            return None
        try:
            with changing(installation) as change:
                require_due(change)
        except NotDueError:
            return None
        return change.snapshot_version


def online_due(session: Session, now_s: float) -> bool:
    """Whether snapshot and timestamp are a day old, or were signed in what is now the future (a clock jumped)."""
    signed = [in_force(session, role).signed_s for role in ONLINE_ROLES]
    return min(signed) + ONLINE_RENEWAL_S <= now_s or max(signed) > now_s + CLOCK_SLACK_S
