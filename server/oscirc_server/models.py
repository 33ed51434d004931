"""The tables. Times are whole seconds since the epoch; digests are 32 raw bytes; signed bytes are kept as received.

`signed_roles`, `documents` and `manifests` are the truth that the tree is projected from, and rows of theirs are
never changed; they go once no client can hold what names them (`collection`). `images` and `versions` are derived from
them for the catalog, `events` says what they changed. A block's row goes staged -> live once its bytes are known to be
on disk, and staged or live -> condemned -> deleting once nothing needs it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BLOCK_STAGED: Final = "staged"
BLOCK_LIVE: Final = "live"
BLOCK_CONDEMNED: Final = "condemned"
BLOCK_DELETING: Final = "deleting"
DRAFT_OPEN: Final = "open"
DRAFT_RELEASED: Final = "released"
VERSION_RELEASED: Final = "released"
VERSION_YANKED: Final = "yanked"
VERSION_DELETED: Final = "deleted"
JOB_QUEUED: Final = "queued"
JOB_RUNNING: Final = "running"
JOB_DONE: Final = "done"
JOB_FAILED: Final = "failed"
JOB_CANCELLED: Final = "cancelled"

_Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself in INTEGER keys only


class Base(DeclarativeBase):
    """The one metadata of all tables."""


class Fact(Base):
    """What the repository knows about itself: its public URL, the machine's boot."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class SignedRole(Base):
    """One version of one TUF role, as signed."""

    __tablename__ = "signed_roles"

    role: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    expires_s: Mapped[int] = mapped_column(BigInteger)
    signed_s: Mapped[int] = mapped_column(BigInteger)


class Document(Base):
    """A TUF target (`repository.json` or an image index) under its path in the tree."""

    __tablename__ = "documents"

    path: Mapped[str] = mapped_column(String(255), primary_key=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    created_s: Mapped[int] = mapped_column(BigInteger)


class ManifestRow(Base):
    """A released manifest; `stored_bytes` counts the frames of its distinct blocks and nodes."""

    __tablename__ = "manifests"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    stored_bytes: Mapped[int] = mapped_column(BigInteger)
    created_s: Mapped[int] = mapped_column(BigInteger)


class ImageRow(Base):
    """An image as the catalog lists it; `listed` is false once its publisher's role names it no more."""

    __tablename__ = "images"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    image: Mapped[str] = mapped_column(String(63), primary_key=True)
    index_path: Mapped[str] = mapped_column(String(255))
    listed: Mapped[bool] = mapped_column()
    version_count: Mapped[int] = mapped_column(Integer)
    title: Mapped[str] = mapped_column(String(100), default="")
    summary: Mapped[str] = mapped_column(String(300), default="")
    search_text: Mapped[str] = mapped_column(Text)
    updated_s: Mapped[int] = mapped_column(BigInteger)


class VersionRow(Base):
    """A version of an image as its index has it, with the facts that people look for; derived, never signed.

    `name` is `publisher/image`. `shown`: it stands for its image. `searched`: its image is listed, and it is released
    or stands for the image. `state_date` and `state_why` say when and why it was yanked or deleted. `kind` and
    `end_of_life` are what its publisher says of the image. What is not known of a deleted version is null or empty.
    """

    __tablename__ = "versions"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    image: Mapped[str] = mapped_column(String(63), primary_key=True)
    label: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(127))
    position: Mapped[int] = mapped_column(Integer)
    manifest: Mapped[bytes] = mapped_column(LargeBinary(32))
    state: Mapped[str] = mapped_column(String(16))
    state_date: Mapped[str] = mapped_column(String(20))
    state_why: Mapped[str] = mapped_column(Text)
    security: Mapped[bool] = mapped_column()
    released: Mapped[str] = mapped_column(String(20))
    changelog: Mapped[str] = mapped_column(Text)
    shown: Mapped[bool] = mapped_column()
    searched: Mapped[bool] = mapped_column()
    family: Mapped[str] = mapped_column(String(64))
    system_version: Mapped[str] = mapped_column(String(64))
    architecture: Mapped[str] = mapped_column(String(32))
    firmware: Mapped[str] = mapped_column(String(16))
    minimum_memory_mib: Mapped[int | None] = mapped_column(Integer)
    default_login: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16), default="")
    end_of_life: Mapped[str] = mapped_column(String(10), default="")
    block_size: Mapped[int | None] = mapped_column(Integer)
    disk_size: Mapped[int | None] = mapped_column(BigInteger)
    data_bytes: Mapped[int | None] = mapped_column(BigInteger)
    download_bytes: Mapped[int | None] = mapped_column(BigInteger)
    search_text: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Index("versions_in_order", "publisher", "image", "position"),
        Index("versions_of_manifest", "manifest"),
        Index("versions_by_date", "searched", "released", "name"),
    )


class CatalogChange(Base):
    """An image whose rows in `versions` changed, and the number of its last change (`services/catalog_changes`)."""

    __tablename__ = "catalog_changes"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    image: Mapped[str] = mapped_column(String(63), primary_key=True)
    serial: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("catalog_changes_in_order", "serial"),)


class EventRow(Base):
    """Something that changed for readers, in the order in which it took force; `detail` is JSON."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(40))
    publisher: Mapped[str] = mapped_column(String(63))
    image: Mapped[str] = mapped_column(String(63))
    subject: Mapped[str] = mapped_column(String(255))
    detail: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("events_of_image", "publisher", "image", "id"),)


class KeptAnswer(Base):
    """The answer to a call with an Idempotency-Key; without a status the call is under way.

    `id` is a digest of token, route and key; `sealed` opens with the caller's own token and key only.
    """

    __tablename__ = "kept_answers"

    id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    token_id: Mapped[str] = mapped_column(String(80))
    body_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    status: Mapped[int | None] = mapped_column(Integer)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    expires_s: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("kept_answers_expiry", "expires_s"), Index("kept_answers_of_token", "token_id"))


class BlockRow(Base):
    """A frame in the store: how many bytes it holds and how long its file is; when it was condemned, or deleting."""

    __tablename__ = "blocks"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    raw_size: Mapped[int] = mapped_column(Integer)
    stored_length: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    created_s: Mapped[int] = mapped_column(BigInteger)
    condemned_s: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index(
            "blocks_not_live",
            "state",
            sqlite_where=text("state != 'live'"),
            postgresql_where=text("state != 'live'"),
        ),
        {"sqlite_with_rowid": False},
    )


class Draft(Base):
    """A publishing session; at most one is open for a publisher, image and version."""

    __tablename__ = "drafts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    publisher: Mapped[str] = mapped_column(String(63))
    image: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(63))
    block_size: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    manifest: Mapped[bytes | None] = mapped_column(LargeBinary)
    role_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    role_version: Mapped[int | None] = mapped_column(BigInteger)
    snapshot_version: Mapped[int | None] = mapped_column(BigInteger)
    created_s: Mapped[int] = mapped_column(BigInteger)
    expires_s: Mapped[int] = mapped_column(BigInteger)
    verifying_until_s: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index(
            "drafts_open",
            "publisher",
            "image",
            "version",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index("drafts_expiry", "state", "expires_s"),
    )


class Lease(Base):
    """A draft needs this block: it must not be collected while the draft lives."""

    __tablename__ = "leases"

    draft_id: Mapped[str] = mapped_column(ForeignKey("drafts.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)

    __table_args__ = (Index("leases_digest", "digest"), {"sqlite_with_rowid": False})


class Quota(Base):
    """What a publisher may keep, in bytes (None: no limit); the row of `*` is for whoever has none of his own."""

    __tablename__ = "quotas"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    unique_limit: Mapped[int | None] = mapped_column(BigInteger)
    logical_limit: Mapped[int | None] = mapped_column(BigInteger)


class PublisherUsage(Base):
    """The sum of a publisher's holdings; `recount_due` since something of it was deleted, or never counted."""

    __tablename__ = "publisher_usage"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    unique_bytes: Mapped[int] = mapped_column(BigInteger)
    recount_due: Mapped[bool] = mapped_column()


class Holding(Base):
    """A block or node that a publisher's versions name, or (`draft_id`) that an open draft has asked about.

    `size` is what it holds, uncompressed; a draft's is the draft's block size until the frame is here.
    """

    __tablename__ = "holdings"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    size: Mapped[int] = mapped_column(Integer)
    draft_id: Mapped[str | None] = mapped_column(String(32))

    __table_args__ = (
        Index(
            "holdings_of_drafts",
            "draft_id",
            sqlite_where=text("draft_id IS NOT NULL"),
            postgresql_where=text("draft_id IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )


class ImageUsage(Base):
    """The logical bytes of an image's versions."""

    __tablename__ = "image_usage"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    image: Mapped[str] = mapped_column(String(63), primary_key=True)
    logical_bytes: Mapped[int] = mapped_column(BigInteger)


class Account(Base):
    """A user (`alice`) or a robot of a publisher (`debian/ci`); never deleted, since the audit names them."""

    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(String(127), primary_key=True)
    publisher: Mapped[str | None] = mapped_column(String(63), index=True)
    password_hash: Mapped[str | None] = mapped_column(Text)
    is_admin: Mapped[bool] = mapped_column()
    created_s: Mapped[int] = mapped_column(BigInteger)
    disabled_s: Mapped[int | None] = mapped_column(BigInteger)


class Member(Base):
    """What a user may do at a publisher."""

    __tablename__ = "members"

    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), primary_key=True)
    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))

    __table_args__ = (Index("members_of", "publisher"),)


class WebSession(Base):
    """A user who has logged in to the pages, by the SHA-256 of the cookie's value."""

    __tablename__ = "web_sessions"

    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), index=True)
    created_s: Mapped[int] = mapped_column(BigInteger)
    seen_s: Mapped[int] = mapped_column(BigInteger)


class RetentionRow(Base):
    """Which versions of an image its publisher means to keep: a proposal until its key signs a deletion."""

    __tablename__ = "retention"

    publisher: Mapped[str] = mapped_column(String(63), primary_key=True)
    image: Mapped[str] = mapped_column(String(63), primary_key=True)
    keep_last: Mapped[int | None] = mapped_column(Integer)
    keep_days: Mapped[int | None] = mapped_column(Integer)
    updated_s: Mapped[int] = mapped_column(BigInteger)


class OidcIssuer(Base):
    """Whose JWTs can be exchanged for tokens; `jwks_url` empty: found by discovery."""

    __tablename__ = "oidc_issuers"

    url: Mapped[str] = mapped_column(String(255), primary_key=True)
    jwks_url: Mapped[str] = mapped_column(String(255))
    created_s: Mapped[int] = mapped_column(BigInteger)


class OidcRule(Base):
    """Which JWTs of an issuer may publish for a publisher; `claims` is JSON as `services.oidc_rules` checks it."""

    __tablename__ = "oidc_rules"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    publisher: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(63))
    issuer: Mapped[str] = mapped_column(String(255))
    claims: Mapped[str] = mapped_column(Text)
    lifetime_s: Mapped[int] = mapped_column(Integer)
    created_s: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("oidc_rules_of", "publisher", "issuer"),)


class OidcUse(Base):
    """A JWT that was exchanged, by the SHA-256 of its issuer and `jti`, until it expires."""

    __tablename__ = "oidc_uses"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    expires_s: Mapped[int] = mapped_column(BigInteger, index=True)


class Token(Base):
    """A bearer token, by the SHA-256 of its text; `scopes` is a space-separated list.

    One with an `account` may do no more than that account may do now. `rule` is the claim rule that gave it out.
    """

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[str] = mapped_column(Text)
    created_s: Mapped[int] = mapped_column(BigInteger)
    expires_s: Mapped[int | None] = mapped_column(BigInteger)
    last_used_s: Mapped[int | None] = mapped_column(BigInteger)
    revoked_s: Mapped[int | None] = mapped_column(BigInteger)
    account: Mapped[str | None] = mapped_column(String(127), index=True)
    rule: Mapped[str | None] = mapped_column(String(16), index=True)


class AcceleratorRow(Base):
    """A file `accel/<sha256>` beside a version; one of a kind and name for each manifest.

    A screenshot's row has its words, and its size in pixels.
    """

    __tablename__ = "accelerators"
    __table_args__ = (Index("accelerators_by_digest", "sha256"),)

    manifest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    length: Mapped[int] = mapped_column(BigInteger)
    index_length: Mapped[int] = mapped_column(BigInteger)
    created_s: Mapped[int] = mapped_column(BigInteger)
    alt: Mapped[str | None] = mapped_column(String(300))
    width: Mapped[int | None]
    height: Mapped[int | None]


class ProfileRun(Base):
    """The first-touch order of one boot, sent by somebody who wanted to; `sender` is a keyed hash of its network."""

    __tablename__ = "profile_runs"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    manifest: Mapped[bytes] = mapped_column(LargeBinary(32))
    name: Mapped[str] = mapped_column(String(63))
    sender: Mapped[bytes] = mapped_column(LargeBinary(16))
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    created_s: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("profile_runs_of", "manifest", "name", "sender", unique=True),)


class JobRow(Base):
    """Work for a background process; `argument` says what of the version is meant, `result` is JSON.

    At most one of a kind and subject is queued. A running one belongs to `worker` until `lease_s`.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))
    publisher: Mapped[str] = mapped_column(String(63))
    image: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(63))
    argument: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(String(64))
    lease_s: Mapped[int | None] = mapped_column(BigInteger)
    not_before_s: Mapped[int] = mapped_column(BigInteger)
    requested_by: Mapped[str] = mapped_column(String(80))
    result: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_s: Mapped[int] = mapped_column(BigInteger)
    started_s: Mapped[int | None] = mapped_column(BigInteger)
    ended_s: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index(
            "jobs_queued_once",
            "kind",
            "publisher",
            "image",
            "version",
            "argument",
            unique=True,
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index("jobs_by_state", "state", "priority", "id"),
        Index("jobs_of_version", "publisher", "image", "version"),
    )


class PendingFile(Base):
    """A file of the tree that does not show yet what the database says (`pending_files`)."""

    __tablename__ = "pending_files"

    path: Mapped[str] = mapped_column(String(255), primary_key=True)
    mark: Mapped[int] = mapped_column(BigInteger)
    since_s: Mapped[int] = mapped_column(BigInteger)


class AuditRow(Base):
    """Who changed what; rows are only ever added."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(255))
    detail: Mapped[str] = mapped_column(Text)
