"""A disk in memory behind the `Reader` seam, with parts that are not resident and parts that fail."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    waited: int
    failing: bool


class MemoryReader:
    """`cold` offsets are not resident; `failures` maps an offset to what a read across it raises."""

    def __init__(self, content: bytes, *, cold=(), failures=None) -> None:
        self.content = content
        self.size = len(content)
        self.cold = set(cold)
        self.failures = failures or {}
        self.waited: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.failing = False
        self.closed = False

    def read(self, offset, size):
        self.waited.append((offset, size))
        self.threads.add(threading.current_thread().name)
        for at, error in self.failures.items():
            if offset <= at < offset + size:
                raise error
        return self.content[offset : offset + size]

    def read_if_resident(self, offset, size):
        if any(offset <= at < offset + size for at in self.cold):
            return None
        return memoryview(self.content)[offset : offset + size]

    def on_block(self, arrived):
        pass

    def is_complete(self):
        return not self.cold

    def fail_reads(self, enabled):
        self.failing = enabled

    def status(self):
        return MemoryStatus(len(self.waited), self.failing)

    def retry_failed(self, timeout_s):
        return not self.failing

    def block_map(self, start):
        return None

    def close(self):
        self.closed = True
