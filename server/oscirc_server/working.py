"""Runs a worker: a process that does jobs and serves nothing, beside servers on the same database and store."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType

from oscirc_server import logs
from oscirc_server.clock import Clock, system_clock
from oscirc_server.installation import Installation
from oscirc_server.job_worker import JobWorkers
from oscirc_server.settings import Settings

_log = logging.getLogger(__name__)


def run(
    settings: Settings,
    ready: Callable[[], None],
    *,
    clock: Clock = system_clock,
    stop: threading.Event | None = None,
) -> None:
    """Do jobs until SIGTERM or SIGINT comes, or `stop` is set; what runs then is put back for others."""
    logs.configure(settings.log_level, settings.log_format)
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():

        def end(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
    with Installation.open(settings, clock) as installation:
        workers = JobWorkers(installation)
        workers.start()
        _log.info("working", extra={"at_once": settings.jobs.at_once, "data": str(settings.data_dir)})
        try:
            ready()
            stop.wait()
        finally:
            workers.stop()
        _log.info("stopped")
