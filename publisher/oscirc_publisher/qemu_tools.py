"""QEMU's tools on one open container file, in processes that can reach nothing else.

- They are given an open descriptor instead of a name, the driver instead of a guess, and `backing: null`: nothing is
  probed, nothing is followed, and a header that changes after it was judged gains nothing.
- They run under limits (no new privileges, no core, no file writes, bounded memory and descriptors), in a session of
  their own (Ctrl-C reaches us, not them), with an environment that holds a PATH and nothing else.
- `qemu-nbd` listens in a directory that only this user can enter, and ends with its last connection. Whoever opens
  one and holds it is thereby the server's life: when that process dies by any means, the kernel closes the
  connection and QEMU goes too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from oscirc_blockstore.errors import DeadlineExceededError, DiskRefusedError, LocalError, MissingProgramError
from oscirc_publisher.nbd import NbdConnection

_CHECK_TIMEOUT_S = 1800.0  # reads all of the map: seconds for a terabyte on a local disk
_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_POLL_S = 0.005
_LIMITS = ("--as=4294967296", "--core=0", "--fsize=0", "--nofile=128")
_CHECK_SOUND = (0, 3)  # 3: clusters that nothing uses, which wastes space and hides nothing
_CHECK_DAMAGED = 2
_MAY_HAVE_BACKING = ("qcow2", "vmdk")  # the others' drivers know no such option


def check_container(descriptor: int, form: str) -> None:
    """Let `qemu-img check` walk the container's whole map; raises `DiskRefusedError` when it is damaged."""
    try:
        done = subprocess.run(
            # its words are as many as there are damaged clusters: the exit status is enough
            _confined("qemu-img", "check", "-q", "--output=json", _image(descriptor, form)),
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
            timeout=_CHECK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(f"checking the {form} takes too long") from None
    if done.returncode == _CHECK_DAMAGED:
        raise DiskRefusedError(
            f"the {form} is damaged or incomplete",
            hint="is it a complete download? qemu-img check FILE says what is wrong with it",
        )
    if done.returncode not in _CHECK_SOUND:
        raise DiskRefusedError(f"QEMU cannot read the {form}", hint="qemu-img check FILE says what is wrong with it")


class NbdServer:
    """One `qemu-nbd` over an open file of the format `form`, for at most `connections` at a time."""

    def __init__(self, descriptor: int, connections: int, form: str) -> None:
        command = _confined("qemu-nbd", "--read-only", f"--shared={connections}", "--socket")
        self.directory = Path(tempfile.mkdtemp(prefix="oscirc-nbd-"))  # mode 0700
        self._socket = self.directory / "socket"
        try:
            self.process = subprocess.Popen(
                [*command, str(self._socket), _image(descriptor, form)],
                pass_fds=(descriptor,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd=self.directory,
                env=_environment(),
            )
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def connect(self) -> NbdConnection:
        """A new connection; waits for a server that is still starting. Raises `LocalError` when it has ended."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.connect(str(self._socket))
            except OSError:
                connected.close()
            else:
                return self._greeted(connected)
            if self.process.poll() is not None:
                raise self._refusal()
            if time.monotonic() > deadline:
                raise DeadlineExceededError("qemu-nbd did not start in time")
            time.sleep(_POLL_S)

    def _greeted(self, connected: socket.socket) -> NbdConnection:
        """It listens before it opens the container: a connection that breaks may mean that it could not."""
        try:
            return NbdConnection(connected)
        except LocalError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_TIMEOUT_S)
                raise self._refusal() from None
            raise

    def end(self) -> None:
        """Waits for the end that the last connection's end brings, then insists; idempotent."""
        for sent in (None, signal.SIGTERM, signal.SIGKILL):
            if sent is not None:
                self.process.send_signal(sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_TIMEOUT_S)
                break
        if self.process.stderr is not None:
            self.process.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _refusal(self) -> LocalError:
        stderr = self.process.stderr
        raw = b"" if stderr is None or stderr.closed else stderr.read(2000)
        words = " ".join(raw.decode(errors="replace").split()).removeprefix("qemu-nbd: ")
        return LocalError(f"QEMU cannot open the container: {words or 'no reason given'}")


def _image(descriptor: int, form: str) -> str:
    """The open file as a block node that refers to nothing else."""
    node: dict[str, object] = {
        "driver": form,
        "file": {"driver": "file", "filename": f"/proc/self/fd/{descriptor}"},
    }
    if form in _MAY_HAVE_BACKING:
        node["backing"] = None
    return "json:" + json.dumps(node)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _confined(program: str, *arguments: str) -> list[str]:
    """The command behind util-linux's own limits, where those are installed; raises `MissingProgramError`."""
    if shutil.which(program) is None:
        raise MissingProgramError(
            f"reading a container needs {program}, which is not installed", hint="apt-get install qemu-utils"
        )
    prefix: list[str] = []
    if shutil.which("setpriv"):
        prefix += ["setpriv", "--no-new-privs"]
    if shutil.which("prlimit"):
        prefix += ["prlimit", *_LIMITS]
    return [*prefix, program, *arguments]
