"""What python-tuf refused, in this project's words: who offered what, what was expected, what the user can do.

python-tuf's exceptions say which rule was broken; what makes them useful to a user (dates, version numbers) stands in
the metadata that was offered and in what is held. Both are looked at here for words only, never for a decision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

from tuf.api import exceptions

from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    ExpiredError,
    LocalError,
    OscircError,
    RollbackError,
    SignatureRefusedError,
    TransportError,
    UnreachableError,
)

Look = Callable[[str], bytes | None]
"""The metadata file of a role as it was just offered, or as it is held; None when there is none."""

_ASK = "nothing of it was used; if this lasts, ask the repository's operator over another channel"
_WORDS: tuple[tuple[type[Exception], type[OscircError], str], ...] = (
    (
        exceptions.UnsignedMetadataError,
        SignatureRefusedError,
        "metadata that is not signed by the keys it must be signed by",
    ),
    (exceptions.LengthOrHashMismatchError, DigestMismatchError, "metadata that is not what was signed"),
    (exceptions.RepositoryError, DocumentRefusedError, "malformed or incomplete metadata"),
)
_EXPIRED_ROLE = re.compile(r"(?:Final |New )?(\S+?)(?:\.json)? is expired$")
_TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")


def _signed(raw: bytes | None) -> dict[str, object]:
    try:
        document = json.loads(raw or b"{}")
        signed = document.get("signed", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _version(raw: bytes | None) -> int | None:
    version = _signed(raw).get("version")
    return version if isinstance(version, int) else None


def expiry(raw: bytes | None) -> datetime | None:
    """The expiry date that a metadata file states, None when it states none that can be read."""
    try:
        return datetime.strptime(str(_signed(raw).get("expires")), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def translate(error: Exception, source: str, *, offered: Look, held: Look, now: datetime) -> OscircError:
    """The leaf of our error tree for what python-tuf, the fetcher below it or the local disk raised."""
    cause = error.__cause__
    if isinstance(error, exceptions.DownloadError):
        return cause if isinstance(cause, OscircError) else UnreachableError(f"{source}: {error}")
    if isinstance(error, exceptions.ExpiredMetadataError):
        return _expired(str(error), source, offered, held, now)
    if isinstance(error, exceptions.BadVersionNumberError) or "is missing info for" in str(error):
        return _rolled_back(str(error), source, offered, held)
    if isinstance(error, OSError):
        return LocalError(f"cannot keep the trust state: {error.strerror}: {error.filename}")
    for kind, refusal, what in _WORDS:
        if isinstance(error, kind):
            return refusal(f"{source} offers {what}: {str(error)[:300]}", hint=_ASK)
    return TransportError(f"{source}: {error!r}")


def _expired(text: str, source: str, offered: Look, held: Look, now: datetime) -> ExpiredError:
    match = _EXPIRED_ROLE.search(text)
    role = match[1] if match else "metadata"
    expires = expiry(offered(role)) or expiry(held(role))
    since = f" on {expires:%Y-%m-%d %H:%M} UTC" if expires else ""
    clock = f"your clock says {now:%Y-%m-%d %H:%M} UTC"
    if role in _TOP_LEVEL:
        whose, fault = f"the repository's {role}", "the operator has stopped re-signing it, or this server is frozen"
    else:
        whose, fault = f"the signature of publisher {role}", "the publisher has to sign again (oscirc publisher resign)"
    return ExpiredError(
        f"{whose} expired{since}; {clock} (asked: {source})",
        hint=f"if the clock is right, {fault}; versions that were verified here before still boot",
    )


def _rolled_back(text: str, source: str, offered: Look, held: Look) -> RollbackError:
    for role in ("timestamp", "snapshot", "targets"):
        new, old = _version(offered(role)), _version(held(role))
        if new is not None and old is not None and new < old:
            return RollbackError(
                f"{source} offered version {new} of the repository's {role} after {old} was seen",
                hint="it is behind, or somebody holds it back; what was verified here before still boots",
            )
    return RollbackError(f"{source} offers metadata that is older than what was seen, or does not fit together: {text}")
