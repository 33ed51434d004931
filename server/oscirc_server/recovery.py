"""Coming back after stolen keys jumped versions ahead, or after more was lost than the store can give back.

Clients that have seen version 2^31 of a snapshot refuse every honest one, until a root names other keys for snapshot
*and* timestamp: then they forget both (TUF specification 5.3.11), and with the snapshot which version of each other
role they have seen. `recover` does all of it in one change, so that nothing signed with the new keys ever names what
the thief made:

1. new online keys, and a root that names them: signed here with the root key, or elsewhere by a ceremony;
2. roles that jumped go back to the version before (`back_to`), and the catalog with them;
3. one snapshot and one timestamp, numbered after those in `back_to`.

It goes back over a jump only: where the number after `back_to` was signed by the thief, a reused number would name two
things, and going back is refused; the publisher then signs over what the thief released and withdraws it. Numbers of
what is dropped are written down (`disavowed`), and their files removed from the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_server import repository
from oscirc_server.disavowed import MAX_NUMBERS, disavow, disavowed
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES, retire_keys
from oscirc_server.metadata import parse
from oscirc_server.models import Document, ImageRow, SignedRole
from oscirc_server.offline_signing import OfflineKeys, next_root
from oscirc_server.online_keys import OnlineKeys, make_online_keys
from oscirc_server.repository import Change
from oscirc_server.services import audit, image_rows
from oscirc_server.services.roles import apply_root
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import index_path, role_of_path, role_path
from oscirc_server.tuf_api import Root, SSlibKey, Targets

JUMP = 1000
"""A gap between two versions that no honest history has; a restored database leaves smaller ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoleHistory:
    """A role's versions in the database and the store: the highest, and the one before the first jump, if any."""

    role: str
    highest: int
    before_jump: int | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What is in force afterwards; `removed` are files of the tree that caches and mirrors should forget, too."""

    root_version: int
    snapshot_version: int
    back_to: dict[str, int]
    removed: tuple[str, ...]


def histories(installation: Installation) -> tuple[RoleHistory, ...]:
    """Every role but the root, by name: where a thief's jump would show."""
    with installation.database.read() as session:
        found = _numbers(session, installation.storage)
    return tuple(_history(role, sorted(numbers)) for role, numbers in sorted(found.items()))


def recover(
    installation: Installation,
    back_to: Mapping[str, int],
    *,
    offline: OfflineKeys | None = None,
    signed_root: bytes | None = None,
) -> Recovered:
    """See above. Give `offline` keys to sign the root here, or the `signed_root` of a ceremony over new online keys."""
    with installation.database.read() as session:
        found = _numbers(session, installation.storage)
        row = repository.in_force(session, "root")
        before = repository.current_root(session).signed
        snapshot = repository.current_version(session, "snapshot")
    if signed_root == row.raw:  # asked for again: an answer may have been lost
        return Recovered(before.version, snapshot, dict(back_to), ())
    dropped = {role: _dropped(role, version, found.get(role, set())) for role, version in sorted(back_to.items())}
    with repository.changing(installation) as change:
        session = change.session
        for role, numbers in dropped.items():
            _drop(change, role, back_to[role], numbers)
        disavow(session, dropped)
        if signed_root is None:
            if offline is None:
                raise UsageError("who signs the new root?", hint="give --keys, or --ceremony with its signatures")
            _sign_root(change, installation, before, offline)
        else:
            _require_other_online_keys(before, parse(signed_root, Root, "the new root").signed)
            apply_root(change, signed_root, installation)
        change.count_from(
            repository.current_version(session, "snapshot"), repository.current_version(session, "timestamp")
        )
        after = repository.current_root(session).signed
        audit.record(session, change.now_s, LOCAL_ACTOR, "trust.recover", "root", version=after.version, **back_to)
    retire_keys(installation.layout.keys, before, after)
    removed = sorted(
        role_path(role, number) for role, numbers in dropped.items() if role != "timestamp" for number in numbers
    )
    for path in removed:
        installation.storage.remove(path)
    _log.warning("recovered with new online keys", extra={"root": after.version, "removed": len(removed)})
    return Recovered(after.version, change.snapshot_version, dict(back_to), tuple(removed))


def _numbers(session: Session, storage: Storage) -> dict[str, set[int]]:
    """The version numbers of every role but the root, in the database and the store, but for those disavowed."""
    found: dict[str, set[int]] = {}
    for role, version in session.execute(select(SignedRole.role, SignedRole.version)):
        found.setdefault(role, set()).add(version)
    for file in storage.files("metadata"):
        named = role_of_path(file.path)
        if named is not None:
            found.setdefault(named[0], set()).add(named[1])
    gone = disavowed(session)
    return {role: numbers - gone.get(role, frozenset()) for role, numbers in found.items() if role != "root"}


def _history(role: str, numbers: list[int]) -> RoleHistory:
    steps = [0, *numbers]
    jump = next((low for low, high in pairwise(steps) if high - low > JUMP), None)
    return RoleHistory(role, steps[-1], jump)


def _dropped(role: str, version: int, numbers: set[int]) -> set[int]:
    """The numbers above `version`, all of which are beyond a jump; `UsageError` where going back is not right."""
    if role == "root":
        raise UsageError(
            "a root never goes back", hint="whoever stole root keys has to be outvoted by a new repository"
        )
    if version != 0 and version not in numbers:
        raise NotFoundError(f"there is no version {version} of the {role} role")
    dropped = {number for number in numbers if number > version}
    if not dropped:
        return dropped
    if min(dropped) - version <= JUMP:
        raise UsageError(
            f"version {min(dropped)} of the {role} role is close to {version}: new ones would be numbered alike",
            hint="keep what is there and sign over it: the publisher withdraws what the thief released",
        )
    if len(dropped) > MAX_NUMBERS:
        raise UsageError(f"{len(dropped)} versions of the {role} role cannot be disavowed one by one")
    return dropped


def _drop(change: Change, role: str, version: int, numbers: set[int]) -> None:
    session = change.session
    for number in numbers:
        session.execute(delete(SignedRole).where(SignedRole.role == role, SignedRole.version == number))
    session.flush()
    if numbers and role not in ("targets", *ONLINE_ROLES):
        _rewind_images(session, role, version, change.now_s)


def _rewind_images(session: Session, publisher: str, version: int, now_s: int) -> None:
    """The catalog's rows as the roles up to `version` leave them: what a next index is compared with."""
    newest: dict[str, str] = {}
    listed: set[str] = set()
    for number, images in _images_of_roles(session, publisher, version):
        if number == version:
            listed = set(images)
        newest = {**images, **newest}
    for row in session.scalars(select(ImageRow).where(ImageRow.publisher == publisher)).all():
        document = session.get(Document, newest[row.image]) if row.image in newest else None
        if document is None:
            image_rows.forget(session, row, now_s)
        else:
            index = image_index.parse(document.raw, publisher, row.image)
            image_rows.record(session, index, document.path, now_s)
    session.flush()
    image_rows.list_only(session, publisher, dict.fromkeys(listed), now_s)


def _images_of_roles(session: Session, publisher: str, version: int) -> Iterator[tuple[int, dict[str, str]]]:
    """(version, index path by image), from `version` downwards."""
    rows = session.scalars(
        select(SignedRole)
        .where(SignedRole.role == publisher, SignedRole.version <= version)
        .order_by(SignedRole.version.desc())
    )
    for row in rows:
        role = parse(row.raw, Targets, f"{publisher}'s role").signed
        yield (
            row.version,
            {
                (image := trust.image_of_target(publisher, target)): index_path(
                    publisher, image, parse_hex(facts.hashes["sha256"])
                )
                for target, facts in role.targets.items()
            },
        )


def _sign_root(change: Change, installation: Installation, before: Root, offline: OfflineKeys) -> None:
    named = frozenset(keyid for role in ONLINE_ROLES for keyid in before.roles[role].keyids)
    made = make_online_keys(installation.layout.keys, named, new=True)

    def edit(root: Root) -> None:
        _name(root, made)

    change.add_role(next_root(repository.current_root(change.session), offline, change.now_s, edit))


def _name(root: Root, made: OnlineKeys) -> None:
    for role in ONLINE_ROLES:
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(SSlibKey.from_crypto(made.of(role)), role)
        root.roles[role].threshold = 1


def _require_other_online_keys(before: Root, after: Root) -> None:
    for role in ONLINE_ROLES:
        if set(before.roles[role].keyids) & set(after.roles[role].keyids):
            raise UsageError(
                f"the new root keeps a {role} key: clients would forget nothing",
                hint="make new ones first: oscirc serve online-keys --new, then oscirc ceremony root --online FILE",
            )
