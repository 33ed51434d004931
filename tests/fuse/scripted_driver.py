"""A driver process for tests: serves a file through a reader that misbehaves on request.

    python scripted_driver.py MOUNTPOINT SCRIPT-AS-JSON

`disk`: the file. `resident`: whether reads are served inline. At an offset in the script's lists a read
raises (`raise`: {offset: class name}), is short (`short`), waits for `fail_reads` or for ever (`block`, `hang`), or takes
time (`slow`: {offset: seconds}). `echo_s`: for how long a failure is remembered. `closed`: a
file that its reader makes once it has closed, which takes a while then.
`prepare`: what happens instead of opening ("raise CLASS", "warn", "exit", "crash", "hang").
Prints one JSON line when it is ready, or the error. Bare text would do for people; this is read by tests.
"""

import builtins
import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from oscirc_blockstore import errors
from oscirc_fusedriver import failures, operations
from oscirc_fusedriver.mounting import mount
from oscirc_fusedriver.readers import MountDescription, MountOptions, PreparedImage


@dataclass(frozen=True)
class ScriptedStatus:
    reads: int
    failing: bool
    blocked: int


class ScriptedReader:
    def __init__(self, script):
        self.script = script
        path = script.get("disk")
        self.descriptor = os.open(path, os.O_RDONLY) if path else -1
        self.size = script.get("size") or os.fstat(self.descriptor).st_size
        self.block_size = script.get("block_size", 0)
        self.seen = set()
        self.reads = self.blocked = 0
        self.failing = threading.Event()
        self.lock = threading.Lock()

    def read(self, offset, size):
        with self.lock:
            self.reads += 1
        inside = [at for at in self.script.get("touched", []) if offset <= at < offset + size]
        for at in inside:
            self.misbehave(at)
        if any(at in self.script.get("short", []) for at in inside):
            return bytes(max(0, size - 1))
        if self.block_size:
            with self.lock:
                self.seen.update(range(offset // self.block_size, -(-(offset + size) // self.block_size)))
        return self.bytes(offset, size)

    def bytes(self, offset, size):
        return os.pread(self.descriptor, size, offset) if self.descriptor >= 0 else bytes(size)

    def misbehave(self, at):
        script = self.script
        time.sleep(script.get("slow", {}).get(str(at), 0))
        name = script.get("raise", {}).get(str(at))
        if name:
            raise (getattr(errors, name, None) or getattr(builtins, name))(f"as scripted at {at}")
        if at in script.get("block", []):
            with self.lock:
                self.blocked += 1
            if not self.failing.wait(60):
                raise errors.DeadlineExceededError("nobody failed the reads")
            raise errors.UnreachableError("reads are being failed")
        if at in script.get("hang", []):
            threading.Event().wait()

    def read_if_resident(self, offset, size):
        touched = any(offset <= at < offset + size for at in self.script.get("touched", []))
        if self.script.get("resident_raises"):
            raise RuntimeError("as scripted")
        if self.script.get("resident") and not touched:
            return memoryview(self.bytes(offset, size))
        if self.block_size:
            with self.lock:
                blocks = range(offset // self.block_size, -(-(offset + size) // self.block_size))
                if self.seen.issuperset(blocks):
                    return self.bytes(offset, size)
        return None

    def on_block(self, arrived):
        pass

    def is_complete(self):
        return bool(self.script.get("resident"))

    def fail_reads(self, enabled):
        self.failing.set() if enabled else self.failing.clear()

    def status(self):
        return ScriptedStatus(self.reads, self.failing.is_set(), self.blocked)

    def retry_failed(self, timeout_s):
        return not self.blocked

    def block_map(self, start):
        return None

    def close(self):
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if "closed" in self.script:
            time.sleep(0.5)
            Path(self.script["closed"]).touch()


def prepare(script):
    what, _, argument = script.get("prepare", "").partition(" ")
    if what == "raise":
        raise (getattr(errors, argument, None) or getattr(builtins, argument))("as scripted")
    if what == "exit":
        os._exit(0)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        threading.Event().wait()
    if what == "warn":
        print("warning: as scripted", file=sys.stderr)
    described = MountDescription("test", "test:alice/disk", "ab" * 32, "alice/disk", "1")
    reader = ScriptedReader(script)
    return PreparedImage(reader, described, reader.block_size)


def main():
    mountpoint, script = Path(sys.argv[1]), json.loads(sys.argv[2])
    for kind in ("raise", "slow"):
        script.setdefault("touched", []).extend(int(at) for at in script.get(kind, {}))
    for kind in ("short", "block", "hang"):
        script["touched"].extend(script.get(kind, []))
    operations._ECHO_S = script.get("echo_s", operations._ECHO_S)
    if script.get("foreground", True):
        logging.basicConfig(level=logging.INFO)
    try:
        mount(
            lambda: prepare(script),
            mountpoint,
            foreground=script.get("foreground", True),
            options=MountOptions(**script.get("options", {})),
            on_ready=lambda record: print(json.dumps({"ready": asdict(record)}), flush=True),
            prepare_timeout_s=script.get("prepare_timeout_s", 60),
        )
    except errors.OscircError as error:
        print(json.dumps({"failure": failures.describe(error)}), flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
