"""What systemd is told: datagrams to the socket it named, nothing without one, and no harm when nobody listens."""

import socket

import pytest

from oscirc_server import supervisor_notes


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_ready_reloading_and_stopping_are_told(manager):
    supervisor_notes.ready("http://127.0.0.1:8420")
    assert manager.recv(4096) == b"READY=1\nSTATUS=listening on http://127.0.0.1:8420"
    supervisor_notes.reloading()
    reloading, monotonic = manager.recv(4096).split(b"\n")
    assert (reloading, int(monotonic.removeprefix(b"MONOTONIC_USEC=")) > 0) == (b"RELOADING=1", True)
    supervisor_notes.stopping()
    assert manager.recv(4096) == b"STOPPING=1"


def test_an_abstract_socket_is_reached(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses an abstract name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listening.getsockname()[1:].decode())
        assert supervisor_notes.tell("READY=1")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("place", ["", "/nowhere/at/all", "relative", "vsock:2:1234"])
def test_nobody_to_tell_is_no_error(monkeypatch, place):
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    assert not supervisor_notes.tell("READY=1")
