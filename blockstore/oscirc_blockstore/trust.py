"""The pure trust rules: what a publisher's signed role may say, as plain values. Signatures are python-tuf's part.

The rules, applied by the server before it accepts a role and by the publisher before it signs one:

1. the role's name is an allowed publisher name, and its version is exactly the current one plus one;
2. it names only targets `<publisher>/<image>.json` of its own, with allowed image names, and delegates to nobody;
3. each target states exactly one SHA-256 and a length within the image index's limit;
4. it expires in the future, and at most `MAX_PUBLISHER_LIFETIME_S` from now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NameRefusedError,
    RollbackError,
    SignatureRefusedError,
    TrustError,
)
from oscirc_blockstore.image_index import MAX_INDEX_BYTES
from oscirc_blockstore.names import check_image, check_publisher

DAY_S = 86_400
ROOT_LIFETIME_S = 5 * 365 * DAY_S
TARGETS_LIFETIME_S = 365 * DAY_S
PUBLISHER_LIFETIME_S = 365 * DAY_S
ONLINE_LIFETIME_S = 7 * DAY_S
ONLINE_RENEWAL_S = DAY_S
MAX_PUBLISHER_LIFETIME_S = PUBLISHER_LIFETIME_S + DAY_S  # a day of slack for clocks that differ
ALARM_BEFORE_EXPIRY_S = 30 * DAY_S
MAX_IMAGES_PER_PUBLISHER = 10_000


def publisher_paths(publisher: str) -> list[str]:
    """The TUF path patterns delegated to a publisher."""
    return [f"{check_publisher(publisher)}/*"]


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What a role says about one target: its length in bytes and its hashes by algorithm."""

    length: int
    hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """A publisher's role reduced to the values that the rules judge; times are seconds since the epoch."""

    publisher: str
    version: int
    expires_s: float
    targets: Mapping[str, TargetFacts]
    delegates: bool


def image_of_target(publisher: str, target: str) -> str:
    """The image whose index `target` is, or `SignatureRefusedError` when it is not this publisher's to sign."""
    prefix, suffix = f"{publisher}/", ".json"
    if not target.startswith(prefix) or not target.endswith(suffix):
        raise SignatureRefusedError(f"publisher {publisher} signed for {target[:200]!r}, which is not its own")
    try:
        return check_image(target[len(prefix) : -len(suffix)])
    except NameRefusedError as error:
        raise SignatureRefusedError(f"publisher {publisher} signed for a bad name: {error}") from None


def check_role(role: RoleFacts, *, current_version: int, now_s: float) -> None:
    """Raise a `TrustError` unless `role` may follow version `current_version` (0 = none yet)."""
    check_publisher(role.publisher)
    if role.version <= current_version:
        raise RollbackError(f"{role.publisher} offers role version {role.version} after {current_version}")
    if role.version != current_version + 1:
        raise TrustError(f"{role.publisher} offers role version {role.version}; {current_version + 1} comes next")
    if role.delegates:
        raise SignatureRefusedError(f"{role.publisher} tries to delegate to others")
    if len(role.targets) > MAX_IMAGES_PER_PUBLISHER:
        raise TrustError(
            f"{role.publisher} signs {len(role.targets)} images; at most {MAX_IMAGES_PER_PUBLISHER} are allowed"
        )
    if role.expires_s <= now_s:
        raise TrustError(
            f"{role.publisher}'s role has already expired",
            hint="look at this machine's clock, then sign again",
        )
    if role.expires_s > now_s + MAX_PUBLISHER_LIFETIME_S:
        raise TrustError(f"{role.publisher}'s role is valid for longer than a year")
    for path, target in role.targets.items():
        image_of_target(role.publisher, path)
        if set(target.hashes) != {"sha256"} or not 0 < target.length <= MAX_INDEX_BYTES:
            raise TrustError(f"{path} must state one SHA-256 and a length of at most {MAX_INDEX_BYTES} bytes")
        try:
            parse_hex(target.hashes["sha256"])
        except DocumentRefusedError as error:
            raise TrustError(f"{path}: {error}") from None
