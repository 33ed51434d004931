"""Asks a running server whether it is well: for container engines, load balancers' scripts and people.

Bounded in time and bytes. On this machine's own addresses a certificate is not checked: it is made for another name,
and nothing secret is sent.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from oscirc_blockstore.errors import TransportError, UnreachableError, UsageError

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: whether it is well, and what fails."""

    is_well: bool
    failing: tuple[str, ...]


def _context(host: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if is_here:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def ask(base_url: str, *, live_only: bool, timeout_s: float) -> Answer:
    """`UnreachableError` when nobody answers; `UsageError` when that is no server's URL."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"not a server's URL: {base_url!r}", hint="such as http://127.0.0.1:8420")
    url = f"{base_url.rstrip('/')}/api/v1/health/{'live' if live_only else 'ready'}"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_context(parts.hostname))
    )
    try:
        with opener.open(url, timeout=timeout_s) as found:
            return _judged(found.status, found.read(_MAX_BYTES + 1), url)
    except urllib.error.HTTPError as refused:
        with refused:
            return _judged(refused.code, refused.read(_MAX_BYTES + 1), url)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"no server answers at {base_url}: {reason}") from None


def _judged(status: int, raw: bytes, url: str) -> Answer:
    try:
        body = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except ValueError:
        body = None
    failing = body.get("failing") if isinstance(body, dict) else None
    if not isinstance(failing, list):
        raise TransportError(f"{url} answered {status}, and not as this program's server does")
    return Answer(status == http.client.OK and not failing, tuple(str(each) for each in failing))
