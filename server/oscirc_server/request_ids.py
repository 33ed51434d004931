"""Request ids: one for every request, from the proxy in front or made here, known to whatever is done meanwhile.

The id stands in a context variable, which asyncio hands on to tasks and to the threads that they wait for. It comes
from somebody else's header, so it is judged: 8 to 64 letters, digits, `-` and `_`, which no log format can be tricked
with. Whether a header may be believed at all is the caller's affair (`requests`). Most requests for files never need
theirs, so one is made when it is first asked for.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-Id"

_FORM = re.compile(r"[A-Za-z0-9_-]{8,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")
_NOT_MADE = "?"


def made() -> str:
    """A new id: 128 random bits, in nginx's form."""
    return secrets.token_hex(16)


def is_request_id(text: str) -> bool:
    """Whether a header's value may stand as an id."""
    return _FORM.fullmatch(text) is not None


def current() -> str:
    """The id of the request that is being answered; empty outside of one."""
    known = _current.get()
    if known == _NOT_MADE:
        known = made()
        _current.set(known)
    return known


def enter(request_id: str | None) -> None:
    """From here on, in this task and in what it starts, `current` is this id; None: one that is made when needed.

    Tasks and threads that are started before it was needed would make one each: who starts any asks first.
    """
    _current.set(_NOT_MADE if request_id is None else request_id)
