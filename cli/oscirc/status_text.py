"""Mounts and guests in words, for a terminal: pure, facts in (`mount_facts`), lines out.

What is wrong comes before what is merely slow, and a mirror that served wrong bytes is named as what it is.
"""

from __future__ import annotations

import time

from oscirc.mount_facts import Facts, mirrors_of, number, whole
from oscirc.output import human_bytes

_LABEL_WIDTH = 16


def mount_lines(facts: Facts, now: float | None = None) -> list[str]:
    """One mount; `now` is Unix time."""
    lines = [f"{facts['image']} on {facts['mountpoint']} (process {facts['pid']})"]
    for label, text in (*_transfer(facts), *_readiness(facts), *_attention(facts, now)):
        lines.append(f"  {label:<{_LABEL_WIDTH}}{text}")
    lines += [f"  {'source':<{_LABEL_WIDTH}}{mirror_line(mirror)}" for mirror in mirrors_of(facts)]
    return lines


def _transfer(facts: Facts) -> list[tuple[str, str]]:
    needed, cached = whole(facts, "needed_bytes"), whole(facts, "cached_bytes")
    bound = "" if facts["surveyed"] else "at least "
    stalled_s, worst_s = number(facts, "stalled_ms") / 1000, number(facts, "worst_stall_ms") / 1000
    return [
        ("disk", f"{human_bytes(whole(facts, 'disk_bytes'))}, {human_bytes(needed)} of data"),
        ("cached", f"{bound}{human_bytes(cached)} ({whole(facts, 'cached_percent')} %)"),
        ("fetched", f"{human_bytes(whole(facts, 'fetched_bytes'))} in {facts['requests']} requests"),
        ("waited for", f"{facts['demand_stalls']} reads, {stalled_s:.1f} s in all, {worst_s:.1f} s at worst"),
        ("fetched ahead", f"{_ahead(facts)}; {_prefetch(facts)}"),
        *_packs(facts),
    ]


def _ahead(facts: Facts) -> str:
    if not whole(facts, "prefetched_blocks"):
        return "no blocks"
    waste, share = whole(facts, "prefetch_waste"), whole(facts, "prefetch_waste_percent")
    used = f"{facts['prefetch_hits']} were used, {waste} ({share} %) not so far" if waste else "all were used"
    return f"{facts['prefetched_blocks']} blocks ({human_bytes(whole(facts, 'prefetched_bytes'))}), {used}"


def _packs(facts: Facts) -> list[tuple[str, str]]:
    """What delta packs did, where there is one or was one that is wrong."""
    packs = facts.get("packs")
    if not isinstance(packs, dict) or not (whole(packs, "packs") or whole(packs, "refused_packs")):
        return []
    text = f"{packs['rebuilt_blocks']} blocks made from old ones, {human_bytes(whole(packs, 'saved_bytes'))} saved"
    if whole(packs, "refused_packs"):
        text += f"; {packs['refused_packs']} times a pack was WRONG, it was not used"
    if whole(packs, "refused_records"):
        text += f"; {packs['refused_records']} records were WRONG, none was used"
    if whole(packs, "failed_records"):
        text += f"; {packs['failed_records']} could not be used, their blocks were fetched whole"
    return [("delta packs", text)]


def _prefetch(facts: Facts) -> str:
    """What is being fetched ahead now."""
    prefetch = facts.get("prefetch")
    if not isinstance(prefetch, dict):
        return "off"
    state, profile = str(prefetch["state"]), repr(prefetch["profile"])
    words = {
        "off": "nothing is fetched ahead",
        "starting": "starting",
        "streaming": f"the bundle {profile} is coming",
        "following": f"another mount fetches the bundle {profile}",
        "complete": f"the bundle {profile} is here",
        "profile": f"the profile {profile} is being fetched",
        "foresight": "what boots usually read is being fetched (no boot of this image was recorded)",
        "filling": "all the rest is being fetched",
        "idle": f"ended: {prefetch['last_problem']}" if prefetch.get("last_problem") else "done",
        "failed": f"the bundle could not be had: {prefetch['last_problem']}",
    }
    return words.get(state, state)


def _readiness(facts: Facts) -> list[tuple[str, str]]:
    lines = []
    if facts.get("ready_to_boot") is not None:
        profile, here = whole(facts, "profile_blocks"), whole(facts, "profile_blocks_cached")
        of = f"{here} of {profile} blocks that a boot reads are here" if profile else "no boot profile is known"
        lines.append(("ready to boot", f"{'yes' if facts['ready_to_boot'] else 'no'}: {of}"))
    share = f"{whole(facts, 'cached_percent')} % of the data is here"
    lines.append(("safe to unplug", "yes: all of the data is here" if facts["safe_to_unplug"] else f"no: {share}"))
    if facts.get("offline_problem"):
        lines.append(("attention", f"it would not be opened without network: {facts['offline_problem']}"))
    return lines


def unmounted_lines(facts: Facts) -> list[str]:
    """An image that is not mounted."""
    pinned = "yes" if facts["pinned"] else f"no; keep it with: oscirc pin {facts['image']}"
    size = human_bytes(whole(facts, "disk_bytes"))
    rows = [
        ("disk", f"{size}, {human_bytes(whole(facts, 'needed_bytes'))} of data"),
        *_readiness(facts),
        ("pinned", pinned),
    ]
    head = f"{facts['remote']}:{facts['image']}, not mounted"
    return [head, *(f"  {label:<{_LABEL_WIDTH}}{text}" for label, text in rows)]


def _attention(facts: Facts, now: float | None) -> list[tuple[str, str]]:
    lines = []
    if facts.get("network_problem"):
        waiting = whole(facts, "waiting_reads")
        reads = f"; {waiting} reads wait" if waiting else ""
        lines.append(("NETWORK", f"{outage(facts, now)}{reads}"))
    for name, text in (
        ("failed_reads", "reads failed"),
        ("damaged", "damaged cached blocks were fetched again"),
        ("uncached_writes", f"blocks could not be kept: {facts['last_write_problem']}"),
    ):
        if facts[name]:
            lines.append(("attention", f"{facts[name]} {text}"))
    liars = [str(mirror["name"]) for mirror in mirrors_of(facts) if mirror.get("lied")]
    if liars:
        lines.append(("attention", f"WRONG BYTES were served by {', '.join(liars)}; none of them was used"))
    return lines


def outage(facts: Facts, now: float | None = None) -> str:
    """Why a read waits, since when, and that it goes on by itself."""
    gone_s = number(facts, "network_gone_s")
    since = time.strftime("%H:%M:%S", time.localtime((time.time() if now is None else now) - gone_s))
    return f"gone since {since} ({gone_s:.0f} s): {facts['network_problem']}. Reads go on by themselves when it is back"


def mirror_line(mirror: Facts) -> str:
    """One mirror: its state, then its figures."""
    parts = [f"{mirror['name']}: {mirror_state(mirror)}", f"{mirror['served']} blocks"]
    if number(mirror, "latency_ms"):
        parts.append(f"{number(mirror, 'latency_ms'):.0f} ms to the first byte")
    if whole(mirror, "throughput"):
        parts.append(f"{human_bytes(whole(mirror, 'throughput'))}/s")
    if number(mirror, "score"):
        parts.append(f"{number(mirror, 'score'):.0f} ms a block")
    if whole(mirror, "hedges"):
        parts.append(f"asked beside a late one {mirror['hedges']} times, {mirror['hedge_wins']} times quicker")
    counted = (("failures", "failures"), ("missing", "times without the block"), ("bad_blocks", "WRONG BLOCKS"))
    for name, text in counted:
        if whole(mirror, name):
            parts.append(f"{mirror[name]} {text}")
    return ", ".join(parts)


def mirror_state(mirror: Facts) -> str:
    """Good, lying, demoted (for how long, and why), or not known yet."""
    problem = str(mirror.get("last_problem") or "")
    if mirror.get("lied"):
        return f"LIED ({problem or 'a cache on the way served a wrong block'})"
    if mirror["demoted"]:
        return f"DEMOTED for {number(mirror, 'demoted_for_s'):.0f} s more ({problem})"
    return "good" if whole(mirror, "served") else "not asked yet"


def overview(facts: Facts) -> str:
    """One mount in a table's cell."""
    if facts["stale"]:
        return f"its driver died; run: oscirc umount {facts['mountpoint']}"
    if "error" in facts:
        return str(facts["error"])
    text = f"{facts['cached_blocks']} of {facts['needed_blocks']} blocks here, "
    text += f"{human_bytes(whole(facts, 'fetched_bytes'))} fetched"
    if facts.get("network_problem"):
        text += f"; the NETWORK is gone for {number(facts, 'network_gone_s'):.0f} s"
    return text
