"""Facts of mounts and instances as Prometheus metrics: pure, facts in (`mount_facts`), metric families out.

Names follow Prometheus: base units (bytes, seconds), `_total` for what only grows. Counters start anew with a mount.
What belongs to a mirror has its address as a label, so that the sum over mirrors is the whole; beside them what was
streamed ahead in bundles is counted with `kind="ahead"`, what delta packs took with `kind="packs"`. A mount that does
not answer is there, with `oscirc_mount_up` 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from oscirc.mount_facts import Facts, mirrors_of, number

MOUNT_LABELS = ("mountpoint", "remote", "image")
MILLI = 0.001


@dataclass(frozen=True, slots=True)
class Shown:
    """One metric that is one fact: its name without prefix and `_total`, the fact, what it says, and how it scales."""

    name: str
    fact: str
    help: str
    counts: bool = True
    scale: float = 1.0

    def family(self, labels: Sequence[str]) -> CounterMetricFamily | GaugeMetricFamily:
        """An empty family."""
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        return kind(f"oscirc_{self.name}", self.help, labels=labels)


OF_MOUNTS = (
    Shown("mount_uptime_seconds", "uptime_s", "Seconds since the mount.", counts=False),
    Shown("disk_bytes", "disk_bytes", "Size of the disk.", counts=False),
    Shown("data_blocks", "needed_blocks", "Blocks of the disk that are not zeros.", counts=False),
    Shown("cached_blocks", "cached_blocks", "Of these, in this machine's cache (at least).", counts=False),
    Shown("safe_to_unplug", "safe_to_unplug", "1 when all data is in the cache.", counts=False),
    Shown("demand_stalls", "demand_stalls", "Reads that waited for the network."),
    Shown("demand_stall_seconds", "stalled_ms", "Seconds that reads waited for the network.", scale=MILLI),
    Shown("demand_stall_worst_seconds", "worst_stall_ms", "The longest such wait.", counts=False, scale=MILLI),
    Shown("waiting_reads", "waiting_reads", "Reads that wait for the network now.", counts=False),
    Shown(
        "network_gone_seconds", "network_gone_s", "For how long nothing could be had; 0 when all is well.", counts=False
    ),
    Shown("failed_reads", "failed_reads", "Reads that were answered with an error."),
    Shown("fetched_blocks", "fetched_blocks", "Blocks fetched one by one and verified."),
    Shown("prefetched_blocks", "prefetched_blocks", "Blocks that came before a read wanted them."),
    Shown("prefetched_bytes", "prefetched_bytes", "Their uncompressed bytes."),
    Shown("prefetch_hits", "prefetch_hits", "Of these blocks, those that a read wanted later."),
    Shown(
        "prefetched_unused_blocks", "prefetch_waste", "Of these blocks, those that no read wanted so far.", counts=False
    ),
    Shown(
        "damaged_cached_blocks", "damaged", "Cached blocks that were not what their name says, and were fetched again."
    ),
    Shown("uncached_blocks", "uncached_writes", "Blocks that were served and could not be kept."),
    Shown("driver_read_calls", "read_calls", "Reads that the kernel's page cache did not answer."),
    Shown("driver_read_errors", "read_errors", "Of these, those that failed."),
)
OF_PACKS = (
    Shown("pack_rebuilt_blocks", "rebuilt_blocks", "Blocks that were made from old ones and a record."),
    Shown("pack_saved_bytes", "saved_bytes", "How many bytes more their block files would have been."),
    Shown("pack_refused_packs", "refused_packs", "Times that a listed pack was not what it must be; it was not used."),
    Shown("pack_refused_records", "refused_records", "Records that made no right block; none was used."),
    Shown("pack_failed_records", "failed_records", "Records that could not be used; the block was fetched whole."),
)
OF_MIRRORS = (
    Shown("mirror_blocks", "served", "Blocks that it served rightly."),
    Shown("mirror_failures", "failures", "Times that it did not answer or refused."),
    Shown("mirror_missing_blocks", "missing", "Times that it lacked a block."),
    Shown("mirror_bad_blocks", "bad_blocks", "Answers that were not the block asked for; none was used."),
    Shown("mirror_hedges", "hedges", "Times that it was asked because another was late."),
    Shown("mirror_hedge_wins", "hedge_wins", "Of these, the times that it answered first."),
    Shown("mirror_latency_seconds", "latency_ms", "Mean time to its first byte.", counts=False, scale=MILLI),
    Shown("mirror_throughput_bytes_per_second", "throughput", "Rate of one transfer.", counts=False),
    Shown(
        "mirror_score_seconds",
        "score",
        "What a block is expected to take; the less, the better.",
        counts=False,
        scale=MILLI,
    ),
    Shown("mirror_demoted", "demoted", "1 while others are asked first.", counts=False),
    Shown("mirror_lied", "lied", "1 once it served a wrong block to this mount.", counts=False),
)
TRAFFIC = (
    Shown(
        "received_bytes", "received_bytes", "Bytes received: by blocks from a mirror, ahead in bundles, in delta packs."
    ),
    Shown("requests", "requests", "Requests sent: for blocks to a mirror, ahead for bundles, for delta packs."),
)

_BESIDE_MIRRORS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ahead", "prefetch", {"received_bytes": "streamed_bytes"}),
    ("packs", "packs", {}),
)
"""The traffic that no mirror counts: its kind, the object that has it, and what a fact is called there."""


def families(mounts: Sequence[Facts], instances: Sequence[Facts]) -> Iterator[Metric]:
    """Every family there is, the empty ones too."""
    answering = [mount for mount in mounts if "needed_blocks" in mount]
    up = GaugeMetricFamily("oscirc_mount_up", "1 when the mount's driver answers.", labels=MOUNT_LABELS)
    for mount in mounts:
        up.add_metric(_labels(mount), float(mount in answering))
    yield up
    for shown in OF_MOUNTS:
        family = shown.family(MOUNT_LABELS)
        for mount in answering:
            family.add_metric(_labels(mount), shown.scale * number(mount, shown.fact))
        yield family
    yield from _per_mirror(answering)
    yield from _of_packs(answering)
    yield from _of_instances(instances)


def _per_mirror(mounts: Sequence[Facts]) -> Iterator[Metric]:
    for shown in TRAFFIC:
        family = shown.family((*MOUNT_LABELS, "kind", "mirror"))
        for mount in mounts:
            for mirror in mirrors_of(mount):
                family.add_metric((*_labels(mount), "blocks", str(mirror["name"])), number(mirror, shown.fact))
            for kind, own, fact in _BESIDE_MIRRORS:
                part = mount.get(own)
                if isinstance(part, dict):
                    family.add_metric((*_labels(mount), kind, ""), number(part, fact.get(shown.fact, shown.fact)))
        yield family
    for shown in OF_MIRRORS:
        family = shown.family((*MOUNT_LABELS, "mirror"))
        for mount in mounts:
            for mirror in mirrors_of(mount):
                family.add_metric((*_labels(mount), str(mirror["name"])), shown.scale * number(mirror, shown.fact))
        yield family


def _of_packs(mounts: Sequence[Facts]) -> Iterator[Metric]:
    for shown in OF_PACKS:
        family = shown.family(MOUNT_LABELS)
        for mount in mounts:
            packs = mount.get("packs")
            if isinstance(packs, dict):
                family.add_metric(_labels(mount), number(packs, shown.fact))
        yield family


def _of_instances(instances: Sequence[Facts]) -> Iterator[Metric]:
    state = GaugeMetricFamily("oscirc_instance_state", "1 for the state it is in.", labels=("instance", "state"))
    paused = GaugeMetricFamily("oscirc_instance_paused", "1 while it is paused by this.", labels=("instance", "cause"))
    for instance in instances:
        name = str(instance["name"])
        state.add_metric((name, str(instance["state"])), 1)
        if instance["paused_by"]:
            paused.add_metric((name, str(instance["paused_by"])), 1)
    yield state
    yield paused


def _labels(mount: Facts) -> tuple[str, ...]:
    return tuple(str(mount.get(label, "")) for label in MOUNT_LABELS)
