"""Looking up hosts' names in a bounded time: the system's resolver has no limit, so it is waited for, not called.

A lookup runs in a thread of its own, one per name however many wait for it, and is left behind by who cannot wait any
longer: it ends when the resolver does. So threads are bounded by `at_once`, and who is about to fork calls `settle`.
Nothing is remembered: that is the resolver's to do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import ip_address

AT_ONCE = 16
Resolve = Callable[[str, int], tuple[str, ...]]


def system_resolver(host: str, port: int) -> tuple[str, ...]:
    """The addresses of a name, in the order in which the system would have them tried; raises `gaierror`."""
    from urllib3.util.connection import allowed_gai_family  # noqa: PLC0415  # a driver's parent need not load it

    found = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class NameLookups:
    """The lookups that are under way in this process."""

    def __init__(self, resolve: Resolve = system_resolver, *, at_once: int = AT_ONCE) -> None:
        self._resolve = resolve
        self._at_once = at_once
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], tuple[threading.Thread, Future[tuple[str, ...]]]] = {}

    def addresses(self, host: str, port: int, timeout_s: float) -> tuple[str, ...]:
        """The addresses of a host; of one that is an address, that.

        Raises `TimeoutError`, and what the resolver raises: `gaierror`, or `UnicodeError` for what cannot be a name.
        """
        with contextlib.suppress(ValueError):
            ip_address(host.partition("%")[0])
            return (host,)
        with self._lock:
            if (host, port) not in self._under_way:
                if len(self._under_way) >= self._at_once:
                    raise TimeoutError("too many names are being looked up")
                future: Future[tuple[str, ...]] = Future()
                thread = threading.Thread(
                    target=self._look_up, args=(host, port, future), name="oscirc-name", daemon=True
                )
                self._under_way[host, port] = thread, future
                thread.start()
            thread, future = self._under_way[host, port]
        try:
            return future.result(timeout_s)
        finally:
            if future.done():
                thread.join()  # its last instant: who asked may be about to fork

    def settle(self, timeout_s: float) -> None:
        """Wait for the end of the lookups that were left behind, at most so long for each."""
        with self._lock:
            threads = [thread for thread, _ in self._under_way.values()]
        for thread in threads:
            thread.join(timeout_s)

    def _look_up(self, host: str, port: int, future: Future[tuple[str, ...]]) -> None:
        found: tuple[str, ...] | BaseException
        try:
            found = self._resolve(host, port)
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            found = error
        with self._lock:
            del self._under_way[host, port]
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)


LOOKUPS = NameLookups()
"""This process's own."""
