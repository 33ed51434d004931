import errno
import logging
import os
import random
import stat
import threading

import pyfuse3
import pytest
import trio

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DigestMismatchError,
    OscircError,
    SignatureRefusedError,
    StoreFullError,
    UnreachableError,
    UsageError,
)
from oscirc_fusedriver.operations import DiskOperations
from oscirc_fusedriver.readers import MountOptions
from oscirc_fusedriver.status import DriverCounters
from oscirc_fusedriver.tree import DISK, NAME, ROOT, errno_of

from .fakes import MemoryReader

CONTENT = random.Random(1).randbytes(1_000_003)
CONTEXT = None  # the handlers do not look at who asks


def operations(reader=None, on_waited=None, **options):
    return DiskOperations(
        reader or MemoryReader(CONTENT), MountOptions(**options), counters=DriverCounters(), on_waited=on_waited
    )


def run(handler, *arguments):
    return trio.run(handler, *arguments)


def refused(handler, *arguments):
    with pytest.raises(pyfuse3.FUSEError) as refusal:
        trio.run(handler, *arguments)
    return refusal.value.errno


def test_a_resident_read_is_served_without_a_thread():
    reader = MemoryReader(CONTENT)
    served = operations(reader)
    assert bytes(run(served.read, DISK, 5000, 4096)) == CONTENT[5000:9096]
    assert (served.counters.inline, served.counters.waited, served.counters.read_bytes) == (1, 0, 4096)
    assert reader.waited == []


def test_a_read_that_is_not_resident_takes_a_thread():
    reader = MemoryReader(CONTENT, cold=[6000])
    seen = []
    served = operations(reader, on_waited=lambda *asked: seen.append(asked))
    assert run(served.read, DISK, 5000, 4096) == CONTENT[5000:9096]
    assert reader.threads.isdisjoint({threading.main_thread().name})
    assert (served.counters.inline, served.counters.waited) == (0, 1)
    assert seen == [(5000, 4096)]


def test_reads_are_cut_at_the_end_and_nowhere_else():
    served = operations()
    assert bytes(run(served.read, DISK, 1_000_000, 4096)) == CONTENT[1_000_000:]
    assert run(served.read, DISK, 1_000_003, 4096) == b""
    assert run(served.read, DISK, 1 << 50, 4096) == b""


@pytest.mark.parametrize("cold", [[], [0]])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda _: b""])
def test_an_answer_of_another_length_is_an_error(cold, change, caplog):
    reader = MemoryReader(CONTENT, cold=cold)
    for name in ("read", "read_if_resident"):
        honest = getattr(reader, name)

        def lie(offset, size, honest=honest):
            answer = honest(offset, size)
            return None if answer is None else change(bytes(answer))

        setattr(reader, name, lie)
    served = operations(reader)
    assert refused(served.read, DISK, 0, 4096) == errno.EIO
    assert served.counters.errors == 1


@pytest.mark.parametrize(
    "error", [ValueError("surprise"), KeyError("x"), MemoryError(), AssertionError(), OSError(28, "x")]
)
def test_unexpected_exceptions_become_input_output_errors(error, caplog):
    served = operations(MemoryReader(CONTENT, cold=[0], failures={0: error}))
    with caplog.at_level(logging.ERROR):
        assert refused(served.read, DISK, 0, 4096) == errno.EIO
    assert caplog.records[0].exc_info is not None
    assert (served.counters.errors, served.counters.unexpected, served.last_error) == (1, 1, error)


def test_every_handler_that_the_kernel_can_call_lets_only_errnos_out(caplog):
    """A handler that is not guarded would end the mount with its first bug."""
    served = operations()
    unguarded = {
        name
        for name in dir(pyfuse3.Operations)
        if not name.startswith("_")
        and name in DiskOperations.__dict__ | type(served).__mro__[1].__dict__
        and not hasattr(getattr(DiskOperations, name), "__wrapped__")
    }
    refusals = {
        "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "write", "create", "setxattr",
        "removexattr",
    }  # fmt: skip
    assert unguarded - refusals == {"supports_dot_lookup", "forget"}
    for name in refusals:
        assert refused(getattr(served, name), 1, 2, 3) == errno.EROFS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OscircError("x"), errno.EIO),
        (SignatureRefusedError("x"), errno.EIO),
        (DigestMismatchError("x"), errno.EIO),
        (DeadlineExceededError("x"), errno.EIO),
        (StoreFullError("x"), errno.EIO),
        (UsageError("x"), errno.EINVAL),
    ],
)
def test_errors_are_translated_by_one_table(error, code, caplog):
    assert errno_of(error) == code
    served = operations(MemoryReader(CONTENT, cold=[0], failures={0: error}))
    assert refused(served.read, DISK, 0, 4096) == code
    assert served.last_error is error
    assert served.counters.unexpected == 0


def test_the_page_asked_again_after_failed_read_ahead_fails_at_once(caplog, monkeypatch):
    monkeypatch.setattr("oscirc_fusedriver.operations._ECHO_S", 60.0)
    reader = MemoryReader(CONTENT, cold=[70_000], failures={70_000: UnreachableError("gone")})
    served = operations(reader)
    assert refused(served.read, DISK, 65536, 131072) == errno.EIO
    assert refused(served.read, DISK, 69632, 4096) == errno.EIO
    assert reader.waited == [(65536, 131072)]
    assert served.counters.errors == 2


def test_a_failure_says_nothing_about_other_bytes_or_later(caplog, monkeypatch):
    reader = MemoryReader(CONTENT, cold=[70_000, 300_000], failures={70_000: UnreachableError("gone")})
    served = operations(reader)
    assert refused(served.read, DISK, 69632, 4096) == errno.EIO
    assert run(served.read, DISK, 299_008, 4096) == CONTENT[299_008:303_104]
    assert bytes(run(served.read, DISK, 65536, 4096)) == CONTENT[65536:69632]
    monkeypatch.setattr("oscirc_fusedriver.operations._ECHO_S", -1.0)
    served = operations(reader)
    assert refused(served.read, DISK, 69632, 4096) == errno.EIO
    reader.failures.clear()
    assert run(served.read, DISK, 69632, 4096) == CONTENT[69632:73728]


def test_a_reader_that_never_answers_is_given_up(caplog):
    release = threading.Event()
    reader = MemoryReader(CONTENT, cold=[0])
    reader.read = lambda *_: release.wait(30)
    served = operations(reader, deadline_s=0.05, grace_s=0.05)
    try:
        assert refused(served.read, DISK, 0, 4096) == errno.EIO
        assert isinstance(served.last_error, DeadlineExceededError)
        assert bytes(run(served.read, DISK, 8192, 100)) == CONTENT[8192:8292]
    finally:
        release.set()


def test_reads_that_wait_are_known_while_they_wait(caplog):
    reader = MemoryReader(CONTENT, cold=[5000])
    served = operations(reader)
    seen = []
    honest = reader.read

    def look(offset, size):
        seen.extend(served.is_awaited(*span) for span in ((0, 4096), (4096, 4097), (8191, 9000), (8192, 9000)))
        return honest(offset, size)

    reader.read = look
    run(served.read, DISK, 4096, 4096)
    assert seen == [False, True, True, False]
    assert not served.is_awaited(0, len(CONTENT))


def test_many_reads_wait_side_by_side():
    barrier = threading.Barrier(16, timeout=30)
    reader = MemoryReader(CONTENT, cold=range(0, 16 * 4096, 4096))
    honest = reader.read

    def together(offset, size):
        barrier.wait()
        return honest(offset, size)

    reader.read = together
    served = operations(reader)
    answers = {}

    async def ask(offset):
        answers[offset] = await served.read(DISK, offset, 4096)

    async def main():
        async with trio.open_nursery() as nursery:
            for offset in range(0, 16 * 4096, 4096):
                nursery.start_soon(ask, offset)

    trio.run(main)
    assert all(CONTENT[offset : offset + 4096] == answer for offset, answer in answers.items())
    assert len(answers) == 16


def test_the_tree_is_constant_for_a_day():
    served = operations(timestamp_s=1000)
    found = run(served.lookup, ROOT, NAME, CONTEXT)
    assert (found.st_ino, found.st_size, found.st_mtime_ns) == (DISK, len(CONTENT), 1000 * 10**9)
    assert stat.S_ISREG(found.st_mode)
    assert found.attr_timeout == found.entry_timeout == 86400
    assert stat.S_ISDIR(run(served.getattr, ROOT, CONTEXT).st_mode)
    assert run(served.getattr, DISK, CONTEXT).st_size == len(CONTENT)
    assert refused(served.getattr, 3, CONTEXT) == errno.ENOENT


def test_an_absent_name_is_remembered_as_absent():
    absent = run(operations().lookup, ROOT, b"other", CONTEXT)
    assert (absent.st_ino, absent.entry_timeout) == (0, 86400)


def test_opening_keeps_the_page_cache_unless_recording():
    kept = run(operations().open, DISK, os.O_RDONLY, CONTEXT)
    assert (kept.keep_cache, kept.direct_io) == (True, False)
    direct = run(operations(direct_io=True).open, DISK, os.O_RDONLY, CONTEXT)
    assert (direct.keep_cache, direct.direct_io) == (False, True)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_opening_for_writing_is_refused(flags):
    assert refused(operations().open, DISK, flags, CONTEXT) == errno.EROFS


def test_only_the_root_is_a_directory():
    assert run(operations().opendir, ROOT, CONTEXT) == ROOT
    assert refused(operations().opendir, DISK, CONTEXT) == errno.ENOTDIR
    assert refused(operations().open, ROOT, os.O_RDONLY, CONTEXT) == errno.EISDIR
    assert run(operations().access, DISK, os.R_OK, CONTEXT)
    assert not run(operations().access, DISK, os.W_OK, CONTEXT)
    assert run(operations().statfs, CONTEXT).f_bavail == 0
