import contextlib
import json
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from oscirc_blockstore.errors import BusyError, LocalError, UsageError
from oscirc_fusedriver import control, control_client
from oscirc_fusedriver.control_client import NoAnswerError
from oscirc_fusedriver.readers import MountDescription
from oscirc_fusedriver.records import MountRecord
from oscirc_fusedriver.socket_address import short_address


@pytest.fixture
def record(tmp_path):
    return MountRecord.of_this_process(tmp_path, "0:1", MountDescription("r", "r:a/b", "00", "a/b", "1"), 512, 10)


@pytest.fixture
def serving(record):
    """Serves these operations in a thread of its own while the test runs."""
    stack = contextlib.ExitStack()

    def serve(**operations):
        started = threading.Event()
        box = {}

        async def main():
            with trio.CancelScope() as scope:
                box["stop"] = scope.cancel
                box["token"] = trio.lowlevel.current_trio_token()
                listener = control.listen(record.socket)
                started.set()
                await control.serve(listener, operations)

        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()

        def stop():
            with contextlib.suppress(trio.RunFinishedError):
                box["token"].run_sync_soon(box["stop"])
            thread.join(30)

        stack.callback(stop)
        assert started.wait(30)

    with stack:
        yield serve


async def echo(request):
    return {"echo": request}


async def busy(request):
    raise BusyError("in use", hint="wait")


async def broken(request):
    raise ValueError("a bug")


def raw(record, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection, short_address(record.socket) as address:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_request_gets_its_answer(serving, record):
    serving(echo=echo)
    message = {"op": "echo", "word": "é"}
    assert control_client.request(record, message, timeout_s=10) == {"echo": message}


def test_errors_arrive_as_what_they_were(serving, record):
    serving(busy=busy)
    with pytest.raises(BusyError, match="in use") as error:
        control_client.request(record, {"op": "busy"}, timeout_s=10)
    assert error.value.hint == "wait"


def test_a_bug_in_one_request_is_its_answer_only(serving, record, caplog):
    serving(broken=broken, echo=echo)
    with pytest.raises(LocalError, match="a bug"):
        control_client.request(record, {"op": "broken"}, timeout_s=10)
    assert control_client.request(record, {"op": "echo"}, timeout_s=10)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]\n",
        b"3\n",
        b'{"op": 5}\n',
        b'{"op": "none"}\n',
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b"x" * 9000,
    ],
)
def test_bad_input_gets_an_error(serving, record, line):
    serving(echo=echo)
    answer = json.loads(raw(record, line))
    assert answer["ok"] is False
    assert answer["result"]["error"] == "UsageError"
    assert control_client.request(record, {"op": "echo"}, timeout_s=10)


def test_a_request_longer_than_the_bound_is_refused_without_reading_on(serving, record):
    serving(echo=echo)
    with contextlib.suppress(ConnectionError):  # it may hang up while we still write
        answer = raw(record, b'{"op": "echo", "x": "' + b"y" * 1_000_000 + b'"}\n')
        assert json.loads(answer)["ok"] is False
    assert control_client.request(record, {"op": "echo"}, timeout_s=10)


def test_the_socket_is_the_users_own(serving, record):
    serving(echo=echo)
    assert record.socket.stat().st_mode & 0o777 == 0o600


def test_silent_clients_do_not_shut_others_out(serving, record, monkeypatch):
    monkeypatch.setattr(control, "_CLIENT_TIMEOUT_S", 0.2)
    serving(echo=echo)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.settimeout(10)
            with short_address(record.socket) as address:
                silent.connect(address)
        assert control_client.request(record, {"op": "echo"}, timeout_s=20)


def test_a_socket_that_was_left_behind_is_replaced(serving, record):
    record.socket.write_text("left")
    serving(echo=echo)
    assert control_client.request(record, {"op": "echo"}, timeout_s=10)


def test_nobody_there(record):
    with pytest.raises(NoAnswerError, match="does not answer"):
        control_client.request(record, {"op": "echo"}, timeout_s=1)


def test_an_answer_that_does_not_come_is_not_waited_for(serving, record):
    async def never(request):
        await trio.sleep_forever()

    serving(never=never)
    with pytest.raises(NoAnswerError, match="within"):
        control_client.request(record, {"op": "never"}, timeout_s=0.1)


NONSENSE = [b"nonsense\n", b"[]\n", b'{"ok": true}\n', b'{"ok": true, "result": 3}\n']


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [(b"", NoAnswerError, "broke off"), *((answer, LocalError, "nonsense") for answer in NONSENSE)],
)
def test_an_answer_that_is_none_is_an_error(record, answer, error, words):
    listener = control.listen(record.socket)

    def reply():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=reply)
    thread.start()
    with pytest.raises(error, match=words):
        control_client.request(record, {"op": "x"}, timeout_s=10)
    thread.join(10)
    listener.close()


def test_an_endless_answer_is_cut(record, monkeypatch):
    monkeypatch.setattr(control_client, "_MAXIMUM_ANSWER_BYTES", 1000)
    listener = control.listen(record.socket)

    def reply():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"x" * 1_000_000)

    thread = threading.Thread(target=reply)
    thread.start()
    with pytest.raises(LocalError, match="too long"):
        control_client.request(record, {"op": "x"}, timeout_s=10)
    thread.join(10)
    listener.close()


def test_a_long_path_is_no_hindrance(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    listener = control.listen(deep / "s")
    with listener, socket.socket(socket.AF_UNIX) as connection, short_address(deep / "s") as address:
        connection.connect(address)


def test_flags_are_true_or_false():
    assert control.flag({"x": True}, "x") is True
    assert control.flag({}, "x", default=False) is False
    for request in ({}, {"x": 1}, {"x": "true"}, {"x": None}):
        with pytest.raises(UsageError):
            control.flag(request, "x")


def test_a_record_of_another_mount_has_another_socket(record, tmp_path):
    assert replace(record, mountpoint=str(tmp_path / "other")).socket != record.socket
    assert Path(record.mountpoint) == tmp_path


def test_positions_are_whole_numbers():
    assert control.position({"start": 0}, "start") == 0
    for request in ({}, {"start": -1}, {"start": True}, {"start": "1"}, {"start": 1.5}):
        with pytest.raises(UsageError):
            control.position(request, "start")
