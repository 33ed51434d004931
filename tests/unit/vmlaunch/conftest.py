"""Values that the tests of this room share."""

import asyncio
import contextlib
import dataclasses
import json
import signal
from pathlib import Path

import pytest

from oscirc_vmlaunch import sockets
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.machine import Endpoint, MachineSpec
from oscirc_vmlaunch.processes import spawn_detached
from oscirc_vmlaunch.records import InstanceRecord


@pytest.fixture
def make_record():
    base = InstanceRecord(
        name="one",
        remote="home",
        reference="alice/circuit",
        manifest_digest="ab" * 32,
        version="1",
        firmware="bios",
        architecture="x86_64",
        memory_mib=64,
        cpus=1,
        accelerator="tcg",
        mount_point="/mnt",
        created="2026-01-01T00:00:00+00:00",
    )
    return lambda **changes: dataclasses.replace(base, **changes)


@pytest.fixture
def instances():
    return Instances()


@pytest.fixture
def make_spec():
    base = MachineSpec(
        name="one",
        qemu=Path("/usr/bin/qemu-system-x86_64"),
        machine_type="pc",
        accelerator="tcg",
        cpus=2,
        memory_mib=1024,
        base=Path("/mnt/disk.raw"),
        overlay=Path("/data/overlay.qcow2"),
        flash=None,
        monitors=(Endpoint(Path("/data/qmp.sock")),),
        console=Endpoint(Path("/data/console.sock")),
        console_log=Path("/data/console.log"),
        pid_file=Path("/data/pid"),
    )
    return lambda **changes: dataclasses.replace(base, **changes)


def finish(process):
    process.send(signal.SIGKILL)
    assert asyncio.run(process.wait(10))


@pytest.fixture
def spawn(tmp_path):
    """Starts processes and ends, by their identity, those that a test leaves running."""
    started = []

    def start(*argv, inherited=()):
        started.append(spawn_detached(argv, log=tmp_path / "spawned.log", inherited=inherited))
        return started[-1]

    yield start
    for process in started:
        finish(process)


@pytest.fixture
def end():
    return finish


class FakeQemu:
    """A monitor that answers from a table, remembers what it was asked, and sends events when told to."""

    def __init__(self, path):
        self.path = path
        self.asked = []
        self.answers = {
            "query-status": {"status": "running"},
            "cont": {},
            "stop": {},
            "quit": {},
            "system_powerdown": {},
        }
        self.silent = set()
        self.hangs_up_on = set()
        self.hangs_up_after = set()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, sock=sockets.listen(self.path))
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self):
        for writer in self._writers:
            writer.close()

    def emit(self, name, **data):
        event = {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}}
        for writer in self._writers:
            self._send(writer, event)

    def set_status(self, status):
        self.answers["query-status"] = {"status": status}

    def _send(self, writer, message):
        if not writer.is_closing():
            writer.write(json.dumps(message).encode() + b"\n")

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
        self._send(writer, {"QMP": {"version": version, "capabilities": []}})
        async for request in self._requests(reader):
            command = request["execute"]
            if command != "qmp_capabilities":
                self.asked.append(command)
            if command in self.hangs_up_on:
                break
            if command not in self.silent:
                self._send(writer, self._answer(command) | ({"id": request["id"]} if "id" in request else {}))
            if command in self.hangs_up_after:
                break
        writer.close()

    async def _requests(self, reader):
        """JSON texts, one after the other; the library puts nothing between them."""
        text = ""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                text += data.decode()
                with contextlib.suppress(json.JSONDecodeError):
                    while text:
                        request, end = json.JSONDecoder().raw_decode(text)
                        text = text[end:]
                        yield request

    def _answer(self, command):
        if command == "qmp_capabilities":
            return {"return": {}}
        answer = self.answers.get(command)
        if answer is None:
            return {"error": {"class": "GenericError", "desc": f"no {command} here"}}
        return {"return": answer(self) if callable(answer) else answer}


@pytest.fixture
def fake_qemu(tmp_path):
    return lambda path=None: FakeQemu(path or tmp_path / "qmp.sock")
