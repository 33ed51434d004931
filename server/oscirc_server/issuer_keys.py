"""The keys of an issuer, fetched over HTTP as from a stranger: bounded in bytes, time, redirects (none) and number.

Kept in memory for an hour. A key that is not among them is asked for anew at most once a minute, so that forged JWTs
make no traffic; one fetch at a time for each issuer. When the issuer cannot be reached, what it said in the last six
hours counts. Only asymmetric keys for signatures are taken: nothing here can ever verify a MAC.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from oscirc_blockstore.errors import UsageError
from oscirc_server.clock import Clock
from oscirc_server.errors import IdentityRefusedError, IssuerUnreachableError
from oscirc_server.services.oidc_rules import Issuer, check_address

MAX_BYTES = 256 * 1024
DEADLINE_S = 5.0
FRESH_S = 3600
STALE_S = 6 * 3600
AGAIN_S = 60
MAX_KEYS = 100
MIN_RSA_BITS = 2048

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    jwks_url: str
    keys: dict[str, Key] = field(default_factory=dict)
    fetched_s: float = float("-inf")
    tried_s: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def usable_keys(document: object) -> dict[str, Key]:
    """The keys of a JWKS by `kid` that may verify signatures; anything else in it is passed over."""
    listed = document.get("keys") if isinstance(document, dict) else None
    found: dict[str, Key] = {}
    for item in listed[:MAX_KEYS] if isinstance(listed, list) else []:
        if not isinstance(item, dict) or item.get("kty") not in ("RSA", "EC", "OKP") or _is_weak(item):
            continue
        kid = item.get("kid", "")
        if item.get("use", "sig") != "sig" or not isinstance(kid, str):
            continue
        try:
            key = import_key({name: value for name, value in item.items() if name not in ("d", "key_ops")})
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            found[kid] = key
    return found


def _is_weak(item: dict[str, object]) -> bool:
    """An RSA key whose modulus, in base64 of 6 bits a character, is too short."""
    modulus = item.get("n", "")
    return item["kty"] == "RSA" and len(modulus if isinstance(modulus, str) else "") * 6 < MIN_RSA_BITS


class IssuerKeys:
    """One for a running server; for one event loop."""

    def __init__(self, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._clock = clock
        self._transport = transport
        self._known: dict[str, _Known] = {}

    async def key(self, issuer: Issuer, kid: str) -> Key:
        """The issuer's key of that id; raises `IdentityRefusedError` or `IssuerUnreachableError`."""
        known = self._known.get(issuer.url)
        if known is None or known.jwks_url != issuer.jwks_url:
            known = self._known[issuer.url] = _Known(issuer.jwks_url)
        async with known.lock:
            now_s = self._clock()
            age_s = now_s - known.fetched_s
            wanted = age_s >= FRESH_S or kid not in known.keys
            if wanted and now_s - known.tried_s >= AGAIN_S:
                known.tried_s = now_s
                try:
                    known.keys = await self._fetch(issuer)
                    known.fetched_s = now_s
                except IssuerUnreachableError as error:
                    _log.warning(
                        "an issuer's keys cannot be fetched", extra={"issuer": issuer.url, "error": str(error)}
                    )
            if now_s - known.fetched_s >= STALE_S:
                raise IssuerUnreachableError("the issuer's keys cannot be fetched at the moment")
            if kid not in known.keys:
                raise IdentityRefusedError("the JWT is signed by a key that its issuer does not name")
            return known.keys[kid]

    async def _fetch(self, issuer: Issuer) -> dict[str, Key]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                async with httpx.AsyncClient(transport=self._transport, timeout=DEADLINE_S) as client:
                    url = issuer.jwks_url or await self._discover(client, issuer.url)
                    found = usable_keys(await _get(client, url))
        except TimeoutError:
            raise IssuerUnreachableError("no answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise IssuerUnreachableError(f"{type(error).__name__}: {error}") from None
        if not found:
            raise IssuerUnreachableError("no usable key in its answer")
        return found

    @staticmethod
    async def _discover(client: httpx.AsyncClient, url: str) -> str:
        document = await _get(client, f"{url.rstrip('/')}/.well-known/openid-configuration")
        facts = document if isinstance(document, dict) else {}
        where = facts.get("jwks_uri")
        if facts.get("issuer") != url or not isinstance(where, str):
            raise IssuerUnreachableError("its discovery document is of another issuer, or names no keys")
        try:
            return check_address(where, "the address of the issuer's keys")
        except UsageError as error:
            raise IssuerUnreachableError(str(error)) from None


async def _get(client: httpx.AsyncClient, url: str) -> object:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "oscirc"}
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
        if response.status_code != httpx.codes.OK or response.headers.get("content-encoding", "identity") != "identity":
            raise IssuerUnreachableError(f"an answer of status {response.status_code}")
        received = bytearray()
        async for piece in response.aiter_raw():
            received += piece
            if len(received) > MAX_BYTES:
                raise IssuerUnreachableError(f"an answer of more than {MAX_BYTES} bytes")
    try:
        document: object = json.loads(received)
    except (ValueError, RecursionError):
        raise IssuerUnreachableError("an answer that is not JSON") from None
    return document
