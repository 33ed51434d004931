"""Lets roles of another tree take force here, without anybody but this server signing: the rules.

*The same root of trust*, or none yet: everything, by the rules that a start applies to a store that is ahead of its
database (`adoption`).

*Another root*: a publisher's role, when all of these hold.

1. this repository delegates the publisher to keys that signed that very role;
2. its version is above the one here, by `MOST_AHEAD` at most: who stole its key must not use up the numbers;
3. it has not expired, and keeps the pure rules of `oscirc_blockstore.trust`;
4. every index is here, is this image's, and forgets nothing that was released or deleted here;
5. every version in them is here, whole.

TUF permits it since a role names no repository: its signer signed these indexes under this name.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import OscircError, TrustError
from oscirc_server import adoption, delegations, repository
from oscirc_server.importing.reading import OfferedRole
from oscirc_server.metadata import role_facts, stored, verify
from oscirc_server.models import Document, ImageRow
from oscirc_server.repository import Change
from oscirc_server.storage import Storage


def refusal(session: Session, role: OfferedRole, here: Collection[Digest], now_s: float) -> str:
    """Why a role of another repository cannot take force in this one; empty when it can."""
    if role.problem:
        return role.problem
    try:
        _judge(session, role, here, now_s)
    except OscircError as error:
        return str(error)
    return ""


def _judge(session: Session, role: OfferedRole, here: Collection[Digest], now_s: float) -> None:
    publisher, signed = role.publisher, role.metadata.signed
    targets = repository.current_targets(session).signed
    delegations.delegation(targets, publisher)
    verify(targets, publisher, role.metadata, f"{publisher}'s role")
    current = repository.current_version(session, publisher)
    if not current < role.version <= current + adoption.MOST_AHEAD:
        raise TrustError(f"{publisher}'s role is at version {current} here, and at {role.version} there")
    trust.check_role(role_facts(publisher, signed), current_version=role.version - 1, now_s=now_s)
    for image, (index, path, _) in role.indexes.items():
        row = session.get(ImageRow, (publisher, image))
        previous = None if row is None or row.index_path == path else session.get(Document, row.index_path)
        if previous is not None:
            image_index.check_successor(image_index.parse(previous.raw, publisher, image), index)
        lacking = [version.label for version in index.versions if version.manifest not in here]
        if lacking:
            raise TrustError(f"the tree lacks parts of {publisher}/{image}@{lacking[0]}")


def take_over(storage: Storage, change: Change, role: OfferedRole) -> None:
    """Let a role take force that `refusal` has nothing against; its files stand in the store."""
    change.add_role(stored(role.publisher, role.metadata.signed, role.raw))
    adoption.adopt_named(storage, change, role.publisher, role.metadata.signed)
