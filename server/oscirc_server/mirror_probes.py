"""Whether the mirrors of `repository.json` answer: asked now and then, for the status page, and for nothing else.

- Only what the signed `repository.json` names is asked: a HEAD of `metadata/timestamp.json`, without a body, a cookie
  or a redirect, `DEADLINE_S` at most, one after the other, every `EVERY_S`. No request of anybody starts one.
- A name that leads to this machine, to its link or to nowhere (loopback, link-local, multicast) is not asked: signed
  or not, this server must not be made to knock at its own doors. Private networks are asked: mirrors stand there.
- What is remembered is a word and a time. That a mirror answers proves nothing of what it has: clients verify that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx
from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import OscircError
from oscirc_server.installation import Installation
from oscirc_server.status import facts_in_force
from oscirc_server.tree_paths import TIMESTAMP_PATH

EVERY_S: Final = 600.0
FIRST_AFTER_S: Final = 60.0
DEADLINE_S: Final = 5.0

Answer = Literal["not asked yet", "answers", "answers with an error", "does not answer", "not asked: a local address"]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorState:
    """A mirror, what became of the last question, and when that was (None: never)."""

    url: str
    answer: Answer = "not asked yet"
    asked_s: int | None = None


async def _addresses(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def _is_local(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified


class MirrorProbes:
    """One for an application; `run` asks, `states` tells, from any thread."""

    def __init__(
        self,
        installation: Installation,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve = _addresses,
    ) -> None:
        self._installation = installation
        self._transport = transport
        self._resolve = resolve
        self._known: dict[str, MirrorState] = {}

    def _named(self) -> tuple[str, ...]:
        with self._installation.database.read() as session:
            facts = facts_in_force(session)
        return () if facts is None else facts.mirrors

    def states(self) -> list[MirrorState]:
        """Every mirror that is named now."""
        return [self._known.get(url) or MirrorState(url) for url in self._named()]

    async def run(self, stop: asyncio.Event, *, first_after_s: float = FIRST_AFTER_S, every_s: float = EVERY_S) -> None:
        """Ask all of them every `every_s`, until `stop`."""
        pause_s = first_after_s
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            if stop.is_set():
                return
            pause_s = every_s
            try:
                await self.ask_all(stop)
            except (OscircError, SQLAlchemyError) as error:
                _log.error("mirrors could not be asked", extra={"error": str(error)[:300]})

    async def ask_all(self, stop: asyncio.Event) -> None:
        """One round."""
        known = {}
        for url in await asyncio.to_thread(self._named):
            if stop.is_set():
                return
            known[url] = MirrorState(url, await self._ask(url), self._installation.now_s())
        self._known = known

    async def _ask(self, url: str) -> Answer:
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(DEADLINE_S):
                port = parts.port or (443 if parts.scheme == "https" else 80)
                if any(_is_local(each) for each in await self._resolve(parts.hostname or "", port)):
                    return "not asked: a local address"
                async with httpx.AsyncClient(transport=self._transport, timeout=DEADLINE_S, trust_env=False) as client:
                    request = client.build_request("HEAD", f"{url}/{TIMESTAMP_PATH}", headers={"User-Agent": "oscirc"})
                    answer = await client.send(request, stream=True, follow_redirects=False)
                    await answer.aclose()
        except (TimeoutError, OSError, ValueError, httpx.HTTPError, httpx.InvalidURL):
            return "does not answer"
        return "answers" if answer.status_code == httpx.codes.OK else "answers with an error"
