"""Takes jobs and has them done: one thread for each that may run at once, and a process for each that runs.

A thread takes a job, gives its process the order, and then waits for three things at once: the outcome, the time to
renew the lease, and the end of this server. A process that takes too long, says too much, or whose job is no longer
this worker's is killed. What it made is listed by this thread, once it is judged (`services.made_files`).

Plans are quick and are made by the thread itself. Nothing here is remembered: a worker that dies leaves a lease that
runs out, and a scratch directory that a later one sweeps.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import BusyError, LocalError, OscircError, StoreFullError, TransportError
from oscirc_server.errors import JobCrashedError, JobRefusedError
from oscirc_server.installation import Installation
from oscirc_server.job_process import MADE, MAX_OUTCOME_BYTES, Order, Outcome
from oscirc_server.services import job_plans, job_presence, jobs, made_files
from oscirc_server.services.jobs import PLAN, JobFacts

POLL_S = 2.0
RENEW_S = 5.0
TIDY_S = 3600.0
_ERRORS = "errors"
_TOLD_CHARS = 500
_GOODBYE_S = 30.0
_FILES = 4  # that a job has in its scratch space at the same time, each as long as what it makes

_log = logging.getLogger(__name__)


class _Stopping(Exception):  # noqa: N818  # not an error
    """The server stops: whatever runs is put back."""


class _NoLongerHeld(Exception):  # noqa: N818  # not an error
    """The job was cancelled, or another worker has it."""


class JobWorkers:
    """`start` once, `stop` once; between them jobs are done."""

    def __init__(self, installation: Installation, *, poll_s: float = POLL_S, renew_s: float = RENEW_S) -> None:
        self._installation = installation
        self._settings = installation.settings.jobs
        self._poll_s, self._renew_s = poll_s, renew_s
        self._stop = threading.Event()
        self._name = secrets.token_hex(4)
        self._said_at = float("-inf")
        self._stopped_fd, self._stopping_fd = os.pipe()
        name = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._threads = [
            threading.Thread(target=self._run, args=(f"{name}-{number}",), name=f"oscirc-job-{number}", daemon=True)
            for number in range(self._settings.at_once)
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End what runs, put it back, and return when the threads have ended."""
        self._stop.set()
        os.close(self._stopping_fd)  # whoever waits for a process sees the other end become readable
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        os.close(self._stopped_fd)
        try:
            job_presence.leave(self._installation, self._name)
        except (OscircError, SQLAlchemyError) as error:  # it is found out in some minutes
            _log.warning("others still think that jobs are done here", extra={"error": str(error)[:300]})

    def _run(self, worker: str) -> None:
        tidied_at = float("-inf")
        while not self._stop.is_set():
            try:
                self._say_present()
                if time.monotonic() - tidied_at > TIDY_S:
                    tidied_at = time.monotonic()
                    self._tidy()
                busy = self._next(worker)
            except (OscircError, SQLAlchemyError) as error:
                _log.error("jobs cannot be looked for", extra={"error": str(error)[:300]})
                busy = False
            except Exception:  # noqa: BLE001  # a mistake of ours ends a job (its lease runs out), never a worker
                _log.exception("a job was left")
                busy = False
            if not busy:
                self._stop.wait(self._poll_s)

    def _say_present(self) -> None:
        """For servers that do no jobs themselves. Twice by two threads is as good as once."""
        now = time.monotonic()
        if now - self._said_at >= job_presence.SAY_EVERY_S:
            self._said_at = now
            try:
                job_presence.say(self._installation, self._name)
            except (OscircError, SQLAlchemyError) as error:  # a note that is late by a minute is no reason to end a job
                _log.warning("it could not be noted that a worker is here", extra={"error": str(error)[:300]})

    def _next(self, worker: str) -> bool:
        """Do one job, if there is one."""
        job = jobs.take(self._installation, worker)
        if job is None:
            return False
        facts = {"job": job.id, "kind": job.wanted.kind, "of": job.wanted.subject}
        started = time.monotonic()
        try:
            result = self._result(job, worker)
        except _Stopping:
            jobs.give_back(self._installation, job, worker)
            _log.info("job put back", extra=facts)
        except _NoLongerHeld:
            _log.info("job given up: it is no longer this worker's", extra=facts)
        except (OscircError, SQLAlchemyError) as error:
            may_pass = isinstance(error, (TransportError, StoreFullError, BusyError, SQLAlchemyError, JobCrashedError))
            jobs.fail(self._installation, job, worker, str(error), may_pass=may_pass)
            _log.error("job failed", extra={**facts, "attempt": job.attempts, "error": str(error)[:300]})
        else:
            jobs.finish(self._installation, job.id, worker, result)
            _log.info("job done", extra={**facts, "s": round(time.monotonic() - started, 1)})
        return True

    def _result(self, job: JobFacts, worker: str) -> dict[str, object]:
        if job.wanted.kind == PLAN:
            return {"queued": job_plans.plan(self._installation, job.wanted.publisher, job.wanted.image)}
        with self._scratch(job) as scratch:
            outcome = self._in_process(job, worker, scratch)
            if not outcome.kind:
                return outcome.facts or {}
            made = made_files.keep(self._installation, job, worker, outcome.kind, outcome.name, scratch / MADE)
        if made is None:
            raise _NoLongerHeld
        facts = {"kind": made.kind, "name": made.name, "sha256": made.sha256.hex(), "length": made.length}
        return {**(outcome.facts or {}), **facts}

    def _in_process(self, job: JobFacts, worker: str, scratch: Path) -> Outcome:
        errors = scratch / _ERRORS
        with errors.open("wb") as told, self._process(scratch, told) as process:
            _tell(process, self._order(job, scratch).line())
            raw = self._answer(job, worker, process)
            try:
                code = process.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                raise JobCrashedError("its process said all and did not end") from None
        if code:
            raise JobCrashedError(f"its process ended with {code}: {_last_words(errors) or 'it said nothing'}")
        try:
            outcome = Outcome.parse(raw)
        except (ValueError, TypeError):
            raise JobCrashedError("its process ended without an outcome") from None
        if outcome.error:
            raise JobCrashedError(outcome.error) if outcome.may_pass else JobRefusedError(outcome.error)
        return outcome

    def _order(self, job: JobFacts, scratch: Path) -> Order:
        settings, limits = self._installation.settings, self._settings
        return Order(
            job.wanted,
            str(settings.data_dir),
            settings.database_url,
            settings.blocks_url,
            str(scratch),
            limits.threads,
            limits.memory_bytes,
            limits.scratch_bytes // _FILES,
            limits.niceness,
        )

    @contextlib.contextmanager
    def _process(self, scratch: Path, told: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """The job's process; it is gone at the end, whatever happens."""
        environment = {**os.environ, "TMPDIR": str(scratch), "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        with subprocess.Popen(
            [sys.executable, "-m", "oscirc_server.job_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the server
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _answer(self, job: JobFacts, worker: str, process: subprocess.Popen[bytes]) -> bytes:
        """All that the process says until its end."""
        output = process.stdout
        assert output is not None  # noqa: S101  (asked for)
        began = renewed = time.monotonic()
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(self._stopped_fd, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(self._renew_s)}
                if self._stop.is_set():
                    raise _Stopping
                now = time.monotonic()
                if now - began > self._settings.time_s:
                    raise JobRefusedError(f"it took longer than the {self._settings.time_s:.0f} s that a job may take")
                if now - renewed >= self._renew_s:
                    renewed = now
                    if not jobs.renew(self._installation, job.id, worker):
                        raise _NoLongerHeld
                    self._say_present()
                if output in ready:
                    piece = os.read(output.fileno(), MAX_OUTCOME_BYTES)
                    said += piece
                    if not piece:
                        return said
                    if len(said) > MAX_OUTCOME_BYTES:
                        raise JobRefusedError("its process said more than any job has to say")

    @contextlib.contextmanager
    def _scratch(self, job: JobFacts) -> Iterator[Path]:
        place = self._installation.layout.scratch / f"{job.id}-{secrets.token_hex(4)}"
        try:
            place.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise LocalError(f"cannot make {place}: {error.strerror}") from None
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _tidy(self) -> None:
        """Forget old jobs, and sweep what dead workers left."""
        jobs.prune(self._installation)
        scratch = self._installation.layout.scratch
        found = list(scratch.iterdir()) if scratch.is_dir() else []
        with self._installation.database.read() as session:
            running = {str(job) for job in jobs.running(session)}
        for place in found:
            if place.name.partition("-")[0] not in running:
                shutil.rmtree(place, ignore_errors=True)


def _last_words(errors: Path) -> str:
    """The end of what a process said of its errors, however much that was."""
    with errors.open("rb") as told:
        told.seek(max(0, told.seek(0, os.SEEK_END) - _TOLD_CHARS))
        return told.read(_TOLD_CHARS).decode(errors="replace").strip()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Give the order and leave the pipe open: its end is the end of this server."""
    assert process.stdin is not None  # noqa: S101  (asked for)
    with contextlib.suppress(BrokenPipeError):  # how it ended is told by its exit code
        process.stdin.write(line)
        process.stdin.flush()
