"""Changes what a publisher has signed: reads what is served, merges, signs the next version, sends, again on conflict.

The server is believed in nothing that the publisher signed. The served role must carry the publisher's own signature
and be no older than what this workstation remembers (`signing`), each index must be the bytes that the role names.
A server that altered, swapped or rolled back either is refused with an error, not signed over.

Two workstations with one key may release at the same moment: the server takes one, answers the other 409, and the
other reads again, merges into what is there now and signs again. An answer that was lost on its way is found the same
way: the change stands there already, and nothing is left to do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from tuf.api.metadata import Targets  # type: ignore[attr-defined]

from oscirc_blockstore import image_index, keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NotFoundError,
    NotServedError,
    OscircError,
    RollbackError,
    ServerRefusedError,
    SignatureRefusedError,
)
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.names import check_publisher
from oscirc_publisher.joint_signing import JointKeys, awaits, role_request
from oscirc_publisher.rest import RestClient
from oscirc_publisher.roles import MAX_ROLE_BYTES, SignedRole, next_payload, no_role, parse_role, sign
from oscirc_publisher.signing import PublisherKey
from oscirc_publisher.uploading import Accepted, send_role

_CONFLICT = 409
_MAX_ROUNDS = 20
_MAX_VERSION = 1 << 53
_LONGEST_ASIDE_S = 1.0
SHOWING_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""A release counts from the server's commit and is shown when its files have followed, a moment later: looked again."""

Clock = Callable[[], datetime]
Merge = Callable[[ImageIndex], ImageIndex]
"""Makes the new index of the old one; called again after a conflict. The same index back means nothing to do."""
Send = Callable[[bytes, Mapping[str, bytes]], Accepted]
"""Sends a signed role and the indexes that it names anew."""


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def date_text(moment: datetime) -> str:
    """A date as indexes write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Released:
    """What is now served: the role's version, the image's index, and whether this call changed anything."""

    role_version: int
    index: ImageIndex
    changed: bool


class Signatory:
    """One publisher in one repository, as its key holder sees it.

    `also_trusted` are former keys of this publisher, for the one moment after a rotation when the served role is
    still signed by them. `repository` names the memory's entry; the base URL is used when it is empty.

    Where the name is delegated to several keys, `joint` says to which (verified; asked when it matters), `co_signers`
    are further keys at hand, and a change that needs others' signatures ends in an `AwaitsSignaturesError`.
    """

    def __init__(
        self,
        rest: RestClient,
        publisher: str,
        key: PublisherKey,
        *,
        repository: str = "",
        also_trusted: Sequence[Ed25519PublicKey] = (),
        co_signers: Sequence[PublisherKey] = (),
        joint: Callable[[], JointKeys] | None = None,
        clock: Clock = utc_now,
        pauses_s: Sequence[float] = SHOWING_PAUSES_S,
    ) -> None:
        self.rest = rest
        self.publisher = check_publisher(publisher)
        self.key = key
        self.clock = clock
        self._repository = repository or rest.url
        self._also_trusted = tuple(also_trusted)
        self._signing = (key, *co_signers)
        self._joint = joint
        self._delegated: JointKeys | None = None
        self._pauses_s = pauses_s

    def served_role(self) -> SignedRole:
        """The role that the server shows, verified.

        Raises `SignatureRefusedError` or `RollbackError` for one that is not ours or not the newest, `NotFoundError`
        when the repository knows no such publisher.
        """
        for pause_s in (*self._pauses_s, None):
            remembered = self.key.remembered(self._repository, self.publisher)  # first: others here release meanwhile
            version = self._stated_version()
            if version < remembered:
                raise RollbackError(
                    f"the server shows version {version} of the role of {self.publisher}, "
                    f"but version {remembered} was signed and accepted before",
                    hint="the server lost or hides releases: tell its administrator, and do not sign over them",
                )
            if version == 0:
                return no_role(self.publisher)
            try:
                raw = self.rest.fetch(f"metadata/{version}.{self.publisher}.json", MAX_ROLE_BYTES)
                break
            except NotServedError:
                if pause_s is None:
                    raise SignatureRefusedError(
                        f"the server states version {version} of the role of {self.publisher} and does not show it"
                    ) from None
                time.sleep(pause_s)
        threshold = 1 if self._delegated is None else self._delegated.threshold
        role = parse_role(raw, self.publisher, version, self._trusted(), threshold=threshold)
        self.key.remember(self._repository, self.publisher, version)
        return role

    def served_index(self, role: SignedRole, image: str) -> ImageIndex:
        """The image's index as `role` names it, verified; an empty one when the image is new."""
        facts = role.index(image)
        if facts is None:
            return ImageIndex(self.publisher, image)
        raw = self.rest.fetch(f"targets/{self.publisher}/{facts.sha256}.{image}.json", facts.length)
        if len(raw) != facts.length or digest_of(raw).hex() != facts.sha256:
            raise SignatureRefusedError(
                f"the server's index of {self.publisher}/{image} is not the one that you signed",
                hint="the server's copy was damaged or tampered with: tell its administrator",
            )
        return image_index.parse(raw, self.publisher, image)

    def _trusted(self) -> tuple[Ed25519PublicKey, ...]:
        joint = () if self._delegated is None else self._delegated.keys
        trusted = (*(key.public for key in self._signing), *joint, *self._also_trusted)
        return tuple({keys.fingerprint(key): key for key in trusted}.values())

    def change(self, image: str, merge: Merge, send: Send | None = None, *, draft: str = "") -> Released:
        """Bring the image's index to what `merge` makes of it.

        After a refusal what is served is read again: the change may stand there (an answer was lost), or somebody
        else was first (merge, sign and send again); any other refusal is raised.
        """
        refusal: OscircError | None = None
        for number in range(_MAX_ROUNDS):
            self._step_aside(number)
            role = self.served_role()
            old = self.served_index(role, image)
            new = merge(old)
            if new == old:
                return Released(role.version, old, changed=refusal is not None)
            if refusal is not None and not _is_conflict(refusal):
                raise refusal
            image_index.check_successor(old, new)
            try:
                previous = {} if role.index(image) is None else {image: old.serialise()}
                accepted = self._sign_and_send(role, {image: new.serialise()}, send or self._put, previous, draft)
            except (ServerRefusedError, NotFoundError) as error:
                refusal = error
            else:
                return Released(accepted.role_version, new, changed=True)
        raise refusal or AssertionError("a round without refusal returns")

    def resign(self) -> int:
        """Sign the same content for another year; the new role version."""
        refusal: OscircError | None = None
        for number in range(_MAX_ROUNDS):
            self._step_aside(number)
            try:
                return self._sign_and_send(self.served_role(), {}, self._put).role_version
            except ServerRefusedError as error:
                if not _is_conflict(error):
                    raise
                refusal = error
        raise refusal or AssertionError("a round without refusal returns")

    def _step_aside(self, number: int) -> None:
        """Before round `number`, from 0: who lost several rounds to others leaves them some time, at random."""
        if number > 1 and self._pauses_s:
            longest_s = self._pauses_s[min(number, len(self._pauses_s)) - 1]
            time.sleep(min(longest_s, _LONGEST_ASIDE_S) * random.random())  # noqa: S311  # not a secret

    def _sign_and_send(
        self,
        role: SignedRole,
        indexes: Mapping[str, bytes],
        send: Send,
        previous: Mapping[str, bytes] | None = None,
        draft: str = "",
    ) -> Accepted:
        payload = next_payload(role, indexes, self.clock())
        private = self._keys_for(payload, role, indexes, previous or {}, draft)
        signed = sign(payload, *private)
        accepted = send(signed, indexes)
        if accepted.role_version != role.version + 1:
            raise DocumentRefusedError(
                f"the server took role version {role.version + 1} and speaks of {accepted.role_version}"
            )
        self.key.remember(self._repository, self.publisher, role.version + 1)
        return accepted

    def _keys_for(
        self,
        payload: Targets,
        role: SignedRole,
        indexes: Mapping[str, bytes],
        previous: Mapping[str, bytes],
        draft: str,
    ) -> list[Ed25519PrivateKey]:
        """The keys to sign with; raises `AwaitsSignaturesError` when others have to sign, too."""
        joint = self._delegated
        if joint is None:
            return [self.key.private]
        named = {keys.fingerprint(key) for key in joint.keys}
        private = [key.private for key in self._signing if key.fingerprint in named]
        if not private:
            raise SignatureRefusedError(
                f"the key {self.key.name} is none of those that {self.publisher} is delegated to",
                hint="use another key (oscirc key list), or have yours added: oscirc publisher rotate … --keep-old",
            )
        if len(private) < joint.threshold:
            request = role_request(self._repository, self.publisher, payload, role.raw, joint, indexes, previous, draft)
            raise awaits(request, private, joint.threshold - len(private))
        return private

    def _put(self, role: bytes, indexes: Mapping[str, bytes]) -> Accepted:
        return send_role(self.rest, "PUT", f"publishers/{self.publisher}/role", role, indexes)

    def _stated_version(self) -> int:
        """What the server says its current version is: a hint where to look, and a chance to fail with good words."""
        try:
            document = self.rest.call_json("GET", f"publishers/{self.publisher}")
        except (NotFoundError, NotServedError):
            raise NotFoundError(
                f"the repository knows no publisher {self.publisher}",
                hint=f"its administrator can add you: oscirc publisher add {self.publisher} PUBLIC-KEY-FILE",
            ) from None
        fingerprints = document.get("fingerprints")
        if isinstance(fingerprints, list) and len(fingerprints) > 1 and self._joint and self._delegated is None:
            self._delegated = self._joint()
        known = {keys.fingerprint(key) for key in self._trusted()}
        if isinstance(fingerprints, list) and fingerprints and known.isdisjoint(map(str, fingerprints)):
            raise SignatureRefusedError(
                f"the repository delegates {self.publisher} to another key than {self.key.name}",
                hint=f"use the key with the fingerprint {str(fingerprints[0])[:64]}, or have yours added",
            )
        version = document.get("role_version") or 0
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= _MAX_VERSION:
            raise DocumentRefusedError("the server states no usable role_version")
        return version


def _is_conflict(refusal: OscircError) -> bool:
    """Whether the role's version was not the next one: ADR 2 answers 409 with the current version."""
    return (
        isinstance(refusal, ServerRefusedError) and refusal.status == _CONFLICT and "current_version" in refusal.problem
    )
