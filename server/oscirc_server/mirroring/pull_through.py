"""`oscirc mirror serve`: answers from a mirror's tree, and fetches what it lacks first; an ASGI application.

- An object is fetched once at a time, however many ask for it, and to its end, also when who asked is gone.
- `metadata/timestamp.json`, listings and hints are asked for anew when they are older than `fresh_s`; where that fails
  or takes long, what is here is the answer. Signed metadata expires by its own dates.
- A large accelerator is not waited for: 404, which sends readers to the next mirror or to the blocks, while it comes.
- While no source can be reached, one request tries every few seconds, and the others fail at once.
- `?bad=<digest>`, with which a reader complains of a block, has the stored file verified first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from oscirc_blockstore.errors import NotServedError, OscircError, TransportError, UnreachableError
from oscirc_server.api.problems import problem, problem_of
from oscirc_server.mirroring.on_demand import BLOCK_S, OnDemand
from oscirc_server.mirroring.publication import served_version
from oscirc_server.mirroring.quota import TreeQuota
from oscirc_server.mirroring.tree_objects import Kind, TreeObject, recognise
from oscirc_server.static import StaticTree
from oscirc_server.tree_paths import cache_control, content_type, is_tree_path

FRESH_S = 60.0
SMALL_BYTES = 8 << 20
THREADS = 48
_REFRESH_PATIENCE_S = 4.0  # of a reader, who has other sources
_LARGE_PATIENCE_S = 1.5
_AGAIN_S = 5.0  # after what was not there, or was refused
_OUTAGE_S = 2.0
_MOST_REMEMBERED = 10_000
_LARGE_AT_ONCE = 2
_CHANGING = (Kind.TIMESTAMP, Kind.LISTING, Kind.HINT)
_METADATA = "metadata"  # of all that one refresh brings
_log = logging.getLogger(__name__)

T = TypeVar("T")


class PullThrough:
    """The application; `clock` is monotonic. `close` ends what is under way."""

    def __init__(
        self,
        on_demand: OnDemand,
        quota: TreeQuota,
        *,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_demand = on_demand
        self._quota = quota
        self._fresh_s = fresh_s
        self._clock = clock
        self._tree = StaticTree(on_demand.directory.storage)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="oscirc-mirror")
        self._under_way: dict[str, asyncio.Task[bytes | None]] = {}
        self._asked_at: dict[str, float] = {}  # changing objects: when they were asked for anew
        self._lacking_until: dict[str, float] = {}
        self._is_out = False
        self._outage_until = -1.0
        self._large: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path: str = scope["path"][1:]
        if scope["type"] != "http":
            return
        if not path:
            await self._facts(scope, receive, send)
            return
        wanted = recognise(path) if is_tree_path(path) and scope["method"] in ("GET", "HEAD") else None
        raw: bytes | None = None
        try:
            if wanted is not None:
                raw = await self._have(wanted, complained=b"bad=" in scope["query_string"])
        except NotServedError as error:
            await problem("NotFoundError", 404, str(error))(scope, receive, send)
            return
        except OscircError as error:
            await problem_of(error)(scope, receive, send)
            return
        if raw is None:
            await self._tree(scope, receive, send)
        else:
            await _send_unkept(scope, receive, send, path, raw)

    async def _have(self, wanted: TreeObject, *, complained: bool) -> bytes | None:
        """Return when the tree has it, or its bytes; raise where it is not to be had."""
        here = self._quota.used(wanted.path)
        if wanted.kind in _CHANGING or (wanted.kind is Kind.ROOT and not here):
            await self._renewed(wanted, here=here)
            return None
        if here and not (complained and wanted.kind is Kind.BLOCK and not await self._is_sound(wanted)):
            return None
        if wanted.path not in self._under_way:
            self._check_hope(wanted.path, self._clock())
        if wanted.kind is Kind.ACCELERATOR:
            return await self._accelerator(wanted)
        return await asyncio.shield(self._flight(wanted))

    async def _renewed(self, wanted: TreeObject, *, here: bool) -> None:
        """Ask anew for what may have changed, unless that was just done; what is here is good enough where it fails."""
        key = _METADATA if wanted.kind in (Kind.TIMESTAMP, Kind.ROOT) else wanted.path
        dispensable = here or wanted.kind is Kind.ROOT  # every reader asks for the root after the last
        now, asked = self._clock(), self._asked_at.get(key)
        if key not in self._under_way:
            if dispensable and asked is not None and now - asked < self._fresh_s:
                return
            if not dispensable:
                self._check_hope(wanted.path, now)
        try:
            flight = self._flight(wanted, key)
            await asyncio.wait_for(asyncio.shield(flight), _REFRESH_PATIENCE_S if dispensable else None)
        except (OscircError, TimeoutError):
            if not dispensable:
                raise

    def _check_hope(self, path: str, now: float) -> None:
        """Raise what asking would raise, as far as that is known from a moment ago."""
        if self._lacking_until.get(path, -1.0) > now:
            raise NotServedError(f"no source has {path}")
        if self._is_out:
            if self._outage_until > now:
                raise UnreachableError("the source of this mirror does not answer")
            self._outage_until = now + BLOCK_S  # this one tries

    async def _accelerator(self, wanted: TreeObject) -> bytes | None:
        listed = (
            None if wanted.digest is None else await self._in_thread(partial(self._on_demand.listed, wanted.digest))
        )
        if listed is None:
            raise NotServedError("no listing that this mirror has served names it")
        if listed.length <= SMALL_BYTES:
            return await asyncio.shield(self._flight(wanted))
        if wanted.path not in self._large and len(self._large) >= _LARGE_AT_ONCE:
            raise NotServedError("it is not here yet")
        self._large.add(wanted.path)
        flight = self._flight(wanted)
        flight.add_done_callback(lambda _: self._large.discard(wanted.path))
        try:
            return await asyncio.wait_for(asyncio.shield(flight), _LARGE_PATIENCE_S)
        except TimeoutError:
            raise NotServedError("it is not here yet") from None

    def _flight(self, wanted: TreeObject, key: str = "") -> asyncio.Task[bytes | None]:
        """The one fetch of an object that is under way, or a new one."""
        key = key or wanted.path
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._fly(wanted, key))
            task.add_done_callback(_look_at)
        return task

    async def _fly(self, wanted: TreeObject, key: str) -> bytes | None:
        try:
            raw = None
            if key == _METADATA:
                await self._in_thread(self._on_demand.refresh)
            else:
                raw = await self._in_thread(partial(self._on_demand.bring, wanted))
            self._is_out = False
        except NotServedError:
            _remember(self._lacking_until, wanted.path, self._clock() + _AGAIN_S)
            raise
        except OscircError as error:
            if isinstance(error, TransportError) and error.retryable:
                self._is_out, self._outage_until = True, self._clock() + _OUTAGE_S
            _log.warning("not fetched", extra={"path": wanted.path, "error": str(error)})
            raise
        else:
            return raw
        finally:
            if wanted.kind in _CHANGING or key == _METADATA:
                _remember(self._asked_at, key, self._clock())
            del self._under_way[key]

    async def _is_sound(self, wanted: TreeObject) -> bool:
        return await self._in_thread(partial(self._on_demand.is_sound, wanted))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _facts(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`/`: what this is, for whoever looks."""
        version = await self._in_thread(partial(served_version, self._on_demand.directory.storage))
        facts = {
            "mirror_of": self._on_demand.directory.remote.line,
            "timestamp_version": version,
            "fetched": self._on_demand.fetched,
            "under_way": len(self._under_way),
        }
        await JSONResponse(facts, headers={"Cache-Control": "no-store"})(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def close(self) -> None:
        """Call off what is under way, and wait for it."""
        await asyncio.to_thread(self._on_demand.close)
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._pool.shutdown()


def _remember(times: dict[str, float], key: str, moment: float) -> None:
    """Keep the newest few: what is forgotten is asked for once more."""
    times.pop(key, None)
    times[key] = moment
    while len(times) > _MOST_REMEMBERED:
        del times[next(iter(times))]


def _look_at(task: asyncio.Task[bytes | None]) -> None:
    """Nobody may be waiting any more for what failed."""
    if not task.cancelled():
        task.exception()


async def _send_unkept(scope: Scope, receive: Receive, send: Send, path: str, raw: bytes) -> None:
    """An object that the disk has no room for."""
    headers = {"Cache-Control": cache_control(path), "X-Content-Type-Options": "nosniff"}
    await Response(raw, headers=headers, media_type=content_type(path))(scope, receive, send)
