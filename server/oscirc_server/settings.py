"""What a running server can be told, and where things stand in its data directory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from oscirc_blockstore.errors import UsageError
from oscirc_server.logs import LogFormat

DEFAULT_LISTEN = "127.0.0.1:8420"
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one data directory; `tree` is what readers see, all of it and nothing else."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file (absent when another database is configured)."""
        return self.root / "oscirc.db"

    @property
    def keys(self) -> Path:
        """The server's own keys, mode 0700."""
        return self.root / "keys"

    @property
    def tree(self) -> Path:
        """The URL tree; nginx may serve it and rsync may copy it as it is."""
        return self.root / "tree"

    @property
    def temporary(self) -> Path:
        """Files being written: on the tree's file system, outside the tree."""
        return self.root / "tmp"

    @property
    def locks(self) -> Path:
        """Where processes of this machine lock what `locks` names (absent where the database does that)."""
        return self.root / "locks"

    @property
    def scratch(self) -> Path:
        """What jobs write while they run, a directory each."""
        return self.root / "scratch"

    @property
    def serve_lock(self) -> Path:
        """Held by the one server that runs on this directory."""
        return self.root / "serve.lock"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to accept connections; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """`HOST:PORT` or `[IPV6]:PORT`, else `UsageError`."""
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
            raise UsageError(f"not an address to listen on: {text!r}", hint="write HOST:PORT, such as 127.0.0.1:8420")
        return cls(host, int(port))

    def url(self, port: int, scheme: str = "http") -> str:
        """The base URL for a client on this machine, once the real port is known."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Background jobs: how many at once (0: none in this process), what each may use, and what is made unasked.

    `deltas`: from how many earlier versions packs are made to what a channel points at. `scratch_bytes` is of one job.
    """

    at_once: int = 0
    threads: int = field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2))
    memory_bytes: int = 2 << 30
    scratch_bytes: int = 6 << 30
    time_s: float = 3600.0
    niceness: int = 10
    deltas: int = 2
    fleet_bundles: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """Garbage collection; seconds.

    `every_s`: how often the server collects by itself (0: never). `told_for_s`: how long after it expired metadata
    still counts. `condemned_for_s`: from a block's condemnation until it may be deleted. `orphan_age_s`: how old a file
    must be to go since nothing knows it.
    """

    every_s: int = 86_400
    told_for_s: int = 30 * 86_400
    condemned_for_s: int = 86_400
    orphan_age_s: int = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server. Sizes in bytes, times in seconds; `database_url` and `blocks_url` default to the data directory.

    `direct_reads` says where readers are sent for blocks. `trusted_proxies` are addresses and networks, separated by
    commas; `*` is everybody.
    """

    data_dir: Path
    listen: Listen = field(default_factory=lambda: Listen.parse(DEFAULT_LISTEN))
    database_url: str | None = None
    blocks_url: str | None = None
    direct_reads: str | None = None
    upload_threads: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    draft_lifetime_s: int = 7 * 86_400
    stalled_body_s: float = 60.0
    shutdown_s: int = 20
    keep_alive_s: int = 75
    max_connections: int = 4096
    trusted_proxies: str = "127.0.0.1,::1"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    shared_boots: bool = True
    jobs: JobSettings = field(default_factory=JobSettings)
    collection: CollectionSettings = field(default_factory=CollectionSettings)
    log_level: str = "info"
    log_format: LogFormat = "lines"

    @property
    def layout(self) -> Layout:
        """The data directory's files."""
        return Layout(self.data_dir)
