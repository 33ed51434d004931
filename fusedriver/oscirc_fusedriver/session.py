"""One mount from `init` to `close`, in the process that serves it: FUSE loop, signals, control socket, first read.

The order at the start: mount; write the record; listen; loop; the first read through the kernel; its read-ahead
(it sets that itself when the connection begins, so not before); "ready".
The order at the end: the kernel lets go (unmounted, or the last file of a detached mount was closed) and the loop
returns; the page pusher ends; the session is closed, which unmounts whatever else happened; record and reader go.

SIGTERM, SIGINT and SIGHUP unmount. When files are open the mount is detached: its name is free at once, this process
serves those who have them open and ends with the last close. A second signal ends it at once; they get errors.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pyfuse3
import trio

from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError, OscircError, UsageError
from oscirc_blockstore.trace import TraceHead
from oscirc_fusedriver import control, kernel, mountpoints, processes
from oscirc_fusedriver.first_read import first_read
from oscirc_fusedriver.operations import DiskOperations
from oscirc_fusedriver.pagecache import PagePusher
from oscirc_fusedriver.readers import MountOptions, PreparedImage
from oscirc_fusedriver.recording import Recorder
from oscirc_fusedriver.records import MountRecord
from oscirc_fusedriver.status import DriverCounters, MountStatus
from oscirc_fusedriver.stderr_capture import captured_stderr
from oscirc_fusedriver.tree import DISK

log = logging.getLogger(__name__)

_TASKS_KEPT, _TASKS_MOST = 4, 128
_LONG_S = 2.0
_STOP_TIMEOUT_S = 5.0
_RETRY_S = 3.0
_LOOK_AGAIN_S, _LOOK_SHARE = 30.0, 50
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

OnReady = Callable[[MountRecord], None]


class Session:
    """Serves `prepared` at `mountpoint` (a real path that was checked). There can be one in a process.

    `on_detached` is called when the mount point is free again although the session goes on.
    """

    def __init__(
        self, prepared: PreparedImage, mountpoint: Path, options: MountOptions, *, on_detached: Callable[[], None]
    ) -> None:
        self._reader = prepared.reader
        self._prepared = prepared
        self._mountpoint = mountpoint
        self._options = options
        self._on_detached = on_detached
        self._counters = DriverCounters()
        self._read_ahead_kb = 0
        self._look_again = trio.Event()
        self._started = time.monotonic()
        self._ready = False
        self._detached: bool | None = None  # while it is mounted
        self._unmounting = trio.Lock()
        self._record: MountRecord | None = None
        self._pusher: PagePusher | None = None
        self._recorder = _recorder(prepared, options)
        self._operations = DiskOperations(
            self._reader, options, counters=self._counters, on_waited=self._offer if self._pushes else None
        )

    @property
    def _pushes(self) -> bool:
        return self._options.push_pages and not self._options.direct_io and self._prepared.block_size > 0

    @property
    def _recording(self) -> bool:
        return self._recorder is not None and not self._recorder.ended

    def _offer(self, offset: int, length: int) -> None:
        if self._pusher is not None and not self._recording:
            self._pusher.offer(offset, length)

    def _offer_block(self, offset: int, length: int) -> None:
        if self._pusher is not None and not self._recording:
            self._pusher.offer_block(offset, length)

    def run(self, on_ready: OnReady) -> None:
        """Mount, call `on_ready` once a read has succeeded, return when it is unmounted; raises `OscircError`."""
        try:
            self._mount()
        except BaseException:
            self._reader.close()
            raise
        try:
            entry = mountpoints.entry_at(self._mountpoint)
            self._record = MountRecord.of_this_process(
                self._mountpoint,
                entry.device if entry else "",
                self._prepared.description,
                self._reader.size,
                self._options.deadline_s,
            )
            self._record.write()
            if self._pushes:
                self._pusher = PagePusher(
                    self._reader,
                    _store,
                    self._operations.is_awaited,
                    block_size=self._prepared.block_size,
                    counters=self._counters,
                )
                self._reader.on_block(self._offer_block)
            trio.run(self._serve, on_ready)
            if not self._ready:
                raise LocalError(f"{self._mountpoint} was unmounted before it could be read")
        except BaseExceptionGroup as group:
            raise _first_cause(group) from None
        finally:
            self._close()

    def _mount(self) -> None:
        options = {
            "fsname=oscirc", "subtype=oscirc", "ro", "nosuid", "nodev", "noexec", "noatime", "default_permissions",
        }  # fmt: skip
        if self._options.allow_other:
            options.add("allow_other")
        os.environ.pop("FUSE_URING_ENABLE", None)  # pyfuse3 knows nothing of requests that arrive by io_uring
        with captured_stderr() as said:
            try:
                pyfuse3.init(self._operations, str(self._mountpoint), options)
            except RuntimeError as error:
                reason = said().removeprefix("fusermount3: ") or str(error)
                hint = ""
                if "user_allow_other" in reason:
                    hint = "add the line user_allow_other to /etc/fuse.conf, or mount without that option"
                raise LocalError(f"cannot mount on {self._mountpoint}: {reason}", hint=hint) from None

    async def _serve(self, on_ready: OnReady) -> None:
        assert self._record is not None  # noqa: S101  # run made it
        listener = control.listen(self._record.socket)
        operations: dict[str, control.Operation] = {
            "status": self._answer_status,
            "fail_reads": self._answer_fail_reads,
            "unmount": self._answer_unmount,
            "retry": self._answer_retry,
            "map": self._answer_map,
            "end_trace": self._answer_end_trace,
        }
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.serve, listener, operations)
                nursery.start_soon(self._watch, signals, nursery.cancel_scope)
                nursery.start_soon(self._announce, self._record, on_ready, nursery)
                await pyfuse3.main(_TASKS_KEPT, _TASKS_MOST)
                log.info("%s is unmounted", self._mountpoint)
                nursery.cancel_scope.cancel()

    async def _announce(self, record: MountRecord, on_ready: OnReady, nursery: trio.Nursery) -> None:
        limit_s = self._options.ready_limit_s
        try:
            problem = await first_read(record.disk, record.disk_size, limit_s)
        except trio.TooSlowError:
            raise DeadlineExceededError(f"{record.disk} could not be read within {limit_s:g} s") from None
        if problem:
            cause = self._operations.last_error
            if isinstance(cause, OscircError):
                raise cause.with_traceback(None)
            raise LocalError(f"{record.disk} cannot be read: {cause or problem}")
        self._ready = True
        self._operations.recorder = self._recorder  # from now on it is the users who read
        on_ready(record)
        nursery.start_soon(self._lengthen_read_ahead)
        if self._recorder is not None and self._options.trace_s is not None:
            await trio.sleep(self._options.trace_s)
            self._end_trace()

    async def _lengthen_read_ahead(self) -> None:
        """Let the kernel read far ahead once that costs no network: when the whole image is on this machine.

        Not before: what the kernel reads ahead nobody has asked for. With 1024 kB a guest that had all of a boot but
        a few blocks fetched 3 MB in vain beside 3.6. The reader has guesses of its own, which count what they waste.
        """
        while True:
            began = time.monotonic()
            recording = self._recording and not self._options.direct_io
            if self._record is not None and not recording and await trio.to_thread.run_sync(self._reader.is_complete):
                self._read_ahead_kb = kernel.raise_read_ahead(self._record.device, self._options.read_ahead_kb)
                return
            self._look_again = trio.Event()
            with trio.move_on_after(max(_LOOK_AGAIN_S, _LOOK_SHARE * (time.monotonic() - began))):
                await self._look_again.wait()

    async def _watch(self, signals: AsyncIterator[int], loop: trio.CancelScope) -> None:
        detached = False
        async for number in signals:
            log.info("%s: unmounting %s", signal.Signals(number).name, self._mountpoint)
            try:
                if self._ready and not detached:
                    detached = await self._unmount(lazy=True)
                    continue
            except OscircError as error:
                log.warning("%s", error)
            loop.cancel()

    async def _unmount(self, *, lazy: bool) -> bool:
        """Whether it is detached rather than unmounted. Of several who ask at once the first does it for all."""
        async with self._unmounting:
            if self._detached is None:
                self._detached = await self._unmount_or_detach(lazy=lazy)
            return self._detached

    async def _unmount_or_detach(self, *, lazy: bool) -> bool:
        problem = await trio.to_thread.run_sync(kernel.unmount_now, self._mountpoint)
        if not problem or mountpoints.entry_at(self._mountpoint) is None:
            return False  # by us, or by somebody else just before
        if not kernel.is_busy(problem):
            raise LocalError(f"cannot unmount {self._mountpoint}: {problem}")
        users = await trio.to_thread.run_sync(processes.users_of, self._mountpoint)
        if not lazy:
            raise BusyError(
                f"{self._mountpoint} is in use" + (f" by {', '.join(users)}" if users else ""),
                hint="end that first, or detach it now and let the driver end with the last close: umount --lazy",
            )
        problem = await trio.to_thread.run_sync(lambda: kernel.unmount_now(self._mountpoint, lazy=True))
        if problem:
            raise LocalError(f"cannot detach {self._mountpoint}: {problem}")
        log.info("%s is detached; still used by %s", self._mountpoint, ", ".join(users) or "somebody")
        if self._record is not None:
            self._record.remove()
        self._on_detached()
        return True

    async def _answer_status(self, _request: dict[str, object]) -> dict[str, object]:
        reader = await trio.to_thread.run_sync(self._reader.status)
        described = dataclasses.asdict(reader) if dataclasses.is_dataclass(reader) else {}  # type: ignore[arg-type]
        return MountStatus(
            mountpoint=str(self._mountpoint),
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 3),
            read_ahead_kb=self._read_ahead_kb,
            driver=self._counters,
            reader=described,
        ).as_json()

    async def _answer_fail_reads(self, request: dict[str, object]) -> dict[str, object]:
        enabled = control.flag(request, "enabled")
        await trio.to_thread.run_sync(self._reader.fail_reads, enabled)
        return {"failing": enabled}

    async def _answer_retry(self, _request: dict[str, object]) -> dict[str, object]:
        return {"answers": await trio.to_thread.run_sync(self._reader.retry_failed, _RETRY_S)}

    async def _answer_map(self, request: dict[str, object]) -> dict[str, object]:
        start = control.position(request, "start")
        part = await trio.to_thread.run_sync(self._reader.block_map, start)
        if not dataclasses.is_dataclass(part) or isinstance(part, type):
            raise UsageError("what is mounted here has no map of blocks")
        return dataclasses.asdict(part)

    async def _answer_end_trace(self, _request: dict[str, object]) -> dict[str, object]:
        if self._recorder is None:
            raise UsageError("nothing is recorded here")
        self._end_trace()
        return {"reads": self._recorder.reads, "problem": self._recorder.problem}

    def _end_trace(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._look_again.set()

    async def _answer_unmount(self, request: dict[str, object]) -> dict[str, object]:
        lazy = control.flag(request, "lazy", default=False)
        detached = False
        with trio.CancelScope(shield=True):  # the loop ends as soon as it has worked; the answer is still owed
            detached = await self._unmount(lazy=lazy)
        return {"detached": detached}

    def _close(self) -> None:
        """Let go of everything; the log says what took long, for whoever waits for this process to end."""
        steps = {"the kernel's session": self._close_session, "the recorder": self._close_recorder}
        for what, step in {**steps, "the reader": self._reader.close}.items():
            began = time.monotonic()
            step()
            if time.monotonic() > began + _LONG_S:
                log.warning("%s took %.1f s to close", what, time.monotonic() - began)
        log.info("all of it is closed")

    def _close_recorder(self) -> None:
        if self._recorder is not None:
            self._recorder.close()

    def _close_session(self) -> None:
        stopped = self._pusher is None or self._pusher.stop(_STOP_TIMEOUT_S)
        if stopped:
            pyfuse3.close(unmount=True)
        else:  # its thread is in the kernel with the session, which therefore must stay
            log.error("the page pusher did not end")
            kernel.unmount_now(self._mountpoint, lazy=True)
            kernel.abort(self._record.device if self._record else "")
        if self._record is not None:
            self._record.remove()


def _recorder(prepared: PreparedImage, options: MountOptions) -> Recorder | None:
    if options.trace is None:
        return None
    return Recorder(options.trace, TraceHead(prepared.reader.size, parse_hex(prepared.description.manifest_digest)))


def _store(offset: int, data: bytes | memoryview) -> None:
    pyfuse3.notify_store(DISK, offset, data)  # type: ignore[arg-type]  # any buffer


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell: a group of one is that one; an `OscircError` says more than what it brought down."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, OscircError)), leaves[0])
