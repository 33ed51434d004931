import asyncio
import contextlib
import os
import pty
import signal
import termios

import pytest

from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError
from oscirc_vmlaunch import console, sockets
from oscirc_vmlaunch.console import Ended


class Guest:
    """The guest's end of a serial console: what was typed, and a way to print."""

    def __init__(self, path):
        self.path = path
        self.typed = b""
        self.attached = asyncio.Event()
        self.heard = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, sock=sockets.listen(self.path))
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.end()
        await self._server.wait_closed()

    def print(self, data):
        self._writer.write(data)

    def end(self):
        if self.attached.is_set():
            self._writer.close()

    async def _serve(self, reader, writer):
        self._writer = writer
        self.attached.set()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                self.typed += data
                self.heard.set()
        writer.close()


@pytest.fixture
def terminal():
    """Both ends of a terminal."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def pipe():
    """A pipe whose writing end may be closed early."""
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def shown(descriptor, expected):
    data = b""
    async with asyncio.timeout(10):
        while expected not in data:
            with contextlib.suppress(BlockingIOError):
                data += os.read(descriptor, 4096)
            await asyncio.sleep(0.001)
    return data


def attach(guest, theirs, **options):
    return asyncio.ensure_future(
        console.attach(guest.path, input_descriptor=theirs, output_descriptor=theirs, **options)
    )


def test_keys_and_output_pass_until_the_escape_key_and_the_terminal_is_restored(tmp_path, terminal):
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = attach(guest, theirs)
            await guest.attached.wait()
            os.write(ours, b"ls\r\x03")
            guest.print(b"circuit login: ")
            await shown(ours, b"circuit login: ")
            assert termios.tcgetattr(theirs) != before
            os.write(ours, b"x\x1drest")
            assert await attachment is Ended.DETACHED
            assert guest.typed == b"ls\r\x03x"

    run(go())
    assert termios.tcgetattr(theirs) == before


def test_the_guests_end_ends_the_attachment(tmp_path, terminal):
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = attach(guest, theirs)
            await guest.attached.wait()
            guest.print(b"Power down\r\n")
            guest.end()
            assert await attachment is Ended.GUEST_ENDED
            await shown(ours, b"Power down")

    run(go())
    assert termios.tcgetattr(theirs) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_the_program_is_ended(tmp_path, terminal, number):
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = attach(guest, theirs)
            await guest.attached.wait()
            guest.print(b"ready")
            await shown(ours, b"ready")
            os.kill(os.getpid(), number)
            with pytest.raises(asyncio.CancelledError):
                await attachment

    run(go())
    assert termios.tcgetattr(theirs) == before
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_failing_start_of_the_guest_restores_the_terminal(tmp_path, terminal):
    _, theirs = terminal
    before = termios.tcgetattr(theirs)

    async def fail():
        raise LocalError("no")

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            await attach(guest, theirs, attached=fail)

    with pytest.raises(LocalError):
        run(go())
    assert termios.tcgetattr(theirs) == before


def test_without_a_terminal_output_is_copied_and_nothing_is_read(tmp_path, pipe):
    read, write = os.pipe()
    os.write(write, b"not for the guest\x1d")

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = asyncio.ensure_future(
                console.attach(guest.path, input_descriptor=read, output_descriptor=pipe[1])
            )
            await guest.attached.wait()
            guest.print(b"hello")
            guest.end()
            assert await attachment is Ended.GUEST_ENDED
            assert guest.typed == b""

    run(go())
    assert os.read(read, 100) == b"not for the guest\x1d"
    assert os.read(pipe[0], 100) == b"hello"
    os.close(read)
    os.close(write)


def test_output_to_a_file_is_complete(tmp_path, pipe):
    text = b"0123456789" * 100_000

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            with (tmp_path / "out").open("wb") as out:
                attachment = asyncio.ensure_future(
                    console.attach(guest.path, input_descriptor=pipe[0], output_descriptor=out.fileno())
                )
                await guest.attached.wait()
                guest.print(text)
                guest.end()
                await attachment

    run(go())
    assert (tmp_path / "out").read_bytes() == text


def test_a_reader_who_left_is_an_error_not_the_guests_end(tmp_path, pipe):
    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = asyncio.ensure_future(
                console.attach(guest.path, input_descriptor=pipe[0], output_descriptor=pipe[1])
            )
            await guest.attached.wait()
            os.close(pipe[0])
            guest.print(b"hello")
            await attachment

    with pytest.raises(BrokenPipeError):
        run(go())


def test_the_last_output_is_shown_first(tmp_path, terminal):
    ours, theirs = terminal
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 10_000 + b"\nlast line\nlogin: ")

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = attach(guest, theirs, log=log)
            seen = await shown(ours, b"login: ")
            assert b"xx" not in seen
            os.write(ours, console.ESCAPE)
            await attachment

    run(go())


def test_a_second_client_is_told_who_holds_the_console(tmp_path, terminal, pipe):
    ours, theirs = terminal

    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            attachment = attach(guest, theirs)
            await guest.attached.wait()
            with pytest.raises(BusyError, match=f"process {os.getpid()}"):
                await console.attach(guest.path, input_descriptor=pipe[0], output_descriptor=pipe[1])
            os.write(ours, console.ESCAPE)
            await attachment

    run(go())


def test_a_console_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(LocalError, match="nothing answers"):
        run(console.attach(tmp_path / "console.sock"))


def test_typed_text_arrives_whole(tmp_path):
    async def go():
        async with Guest(tmp_path / "console.sock") as guest:
            await console.type_text(guest.path, "root\n")
            return guest.typed

    assert run(go()) == b"root\n"


def test_a_guest_that_does_not_read_is_given_up(tmp_path):
    async def go():
        with sockets.listen(tmp_path / "console.sock"):
            await console.type_text(tmp_path / "console.sock", "root\n", deadline_s=0.05)

    with pytest.raises(DeadlineExceededError):
        run(go())


def test_text_is_found_when_it_is_printed(tmp_path):
    log = tmp_path / "console.log"

    async def go():
        waiting = asyncio.ensure_future(console.wait_for_text(log, r"(\w+) login:", deadline_s=10))
        await asyncio.sleep(0)
        log.write_text("\xff boot\r\ncircuit login: ", encoding="latin-1")
        return await waiting

    assert run(go())[1] == "circuit"


def test_text_that_does_not_come_ends_at_the_deadline_with_what_came(tmp_path):
    log = tmp_path / "console.log"
    with pytest.raises(DeadlineExceededError, match="printed nothing"):
        run(console.wait_for_text(log, "login:", deadline_s=0))
    log.write_text("Kernel panic\n")
    with pytest.raises(DeadlineExceededError, match="Kernel panic"):
        run(console.wait_for_text(log, "login:", deadline_s=0.1))


def test_waiting_ends_at_once_when_the_guest_does_but_its_last_words_count(tmp_path):
    log = tmp_path / "console.log"
    log.write_text("done\n")
    with pytest.raises(LocalError, match="ended before"):
        run(console.wait_for_text(log, "login:", deadline_s=60, alive=lambda: False))
    assert run(console.wait_for_text(log, "done", deadline_s=60, alive=lambda: False))


def test_tails_begin_at_a_line(tmp_path):
    log = tmp_path / "log"
    assert console.tail(log) == b""
    log.write_bytes(b"one\ntwo\nthree\n")
    assert console.tail(log) == b"one\ntwo\nthree\n"
    assert console.tail(log, limit_bytes=9) == b"three\n"
