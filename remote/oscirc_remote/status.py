"""What `oscirc status` shows, as frozen values that turn into JSON with `dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """One mirror. `bad_blocks` are answers that were not the block asked for; `demoted`: others are asked first.

    `latency_ms` is the mean time to a first byte, `throughput` bytes per second of one transfer, `score` the
    milliseconds that a typical frame is expected to take (0 before anything was measured). `hedges` were asked of it
    because another was late, `hedge_wins` of them answered first. `demoted_for_s` are left until it is probed.
    """

    name: str
    demoted: bool
    requests: int
    received_bytes: int
    served: int
    failures: int
    missing: int
    bad_blocks: int
    last_problem: str = ""
    latency_ms: float = 0.0
    throughput: int = 0
    score: float = 0.0
    hedges: int = 0
    hedge_wins: int = 0
    demoted_for_s: float = 0.0
    lied: bool = False


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The cache between a reader and the mirrors; bytes are uncompressed except where mirrors count them.

    `damaged` counts cached files that were not what their name says; `uncached_writes` counts blocks that were
    served but could not be kept, with `last_write_problem` saying why. `prefetched_blocks` came before a read wanted
    them, `prefetch_hits` of them were wanted later; the rest is waste, so far.
    """

    memory_hits: int
    file_hits: int
    fetched_blocks: int
    fetched_nodes: int
    fetched_bytes: int
    joined_flights: int
    lock_waits: int
    damaged: int
    uncached_writes: int
    prefetched_blocks: int
    prefetched_bytes: int
    prefetch_hits: int
    last_write_problem: str
    mirrors: tuple[MirrorStatus, ...]


@dataclass(frozen=True, slots=True)
class PrefetchStatus:
    """What is fetched before it is asked for.

    `state`: `off`, `starting`, `streaming` (a bundle), `following` (another mount streams it), `complete`, `failed`,
    `profile`, `foresight` (what boots usually read), `filling`, `idle`. `blocks` came in the bundle; bytes are as they
    travel.
    """

    state: str = "off"
    profile: str = ""
    bundle_bytes: int = 0
    streamed_bytes: int = 0
    requests: int = 0
    blocks: int = 0
    failures: int = 0
    last_problem: str = ""


@dataclass(frozen=True, slots=True)
class PackStatus:
    """What delta packs did: `packs` are in use; `record_bytes` were fetched where whole frames cost `saved_bytes` more.

    `refused_packs`: how often a listed pack's head or index was not what it must be, so that the pack was not used.
    `refused_records` made no block that the table names (it was made of another mirror's record, or fetched whole);
    `failed_records` could not be had or lacked an old block (it was fetched whole). `requests` and `received_bytes` are
    all that packs took, their indexes too.
    """

    packs: int = 0
    rebuilt_blocks: int = 0
    rebuilt_nodes: int = 0
    record_bytes: int = 0
    saved_bytes: int = 0
    refused_packs: int = 0
    refused_records: int = 0
    failed_records: int = 0
    requests: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReaderStatus:
    """One image as it is being read. Positions of a disk that hold data are `blocks_needed`.

    `blocks_cached` of them stand in the cache; it is a lower bound unless `surveyed`, since looking at all of a
    very large image takes longer than an answer may. Stalls are reads that had to wait for the network.
    `profile_blocks` are what its boot profile names, nodes included (0: none known); `ready_to_boot` when all are here.
    `waiting_reads` do so now; `network_problem` (empty: none known) has lasted for `network_gone_s`: see `outage`.
    """

    disk_size: int
    block_size: int
    blocks_needed: int
    bytes_needed: int
    blocks_cached: int
    bytes_cached: int
    surveyed: bool
    requests: int
    received_bytes: int
    demand_stalls: int
    stalled_ms: int
    worst_stall_ms: int
    failed_reads: int
    failing_reads: bool
    cache: CacheStatus
    prefetch: PrefetchStatus
    waiting_reads: int = 0
    network_problem: str = ""
    network_gone_s: float = 0.0
    profile_blocks: int = 0
    profile_blocks_cached: int = 0
    ready_to_boot: bool = False
    packs: PackStatus = PackStatus()

    @property
    def safe_to_unplug(self) -> bool:
        """Whether every block of the image is on this machine."""
        return self.surveyed and self.blocks_cached == self.blocks_needed
