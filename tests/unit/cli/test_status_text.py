import time

import pytest

from oscirc import pause, status_text

MIRROR = {
    "name": "http://one.example/repo",
    "demoted": False,
    "requests": 12,
    "received_bytes": 1000,
    "served": 10,
    "failures": 0,
    "missing": 0,
    "bad_blocks": 0,
    "last_problem": "",
    "latency_ms": 21.4,
    "throughput": 3 << 20,
    "score": 45.0,
    "hedges": 0,
    "hedge_wins": 0,
    "demoted_for_s": 0.0,
    "lied": False,
}
FACTS = {
    "mountpoint": "/mnt",
    "image": "alice/debian@1",
    "remote": "home",
    "pid": 7,
    "disk_bytes": 4 << 30,
    "needed_bytes": 1 << 30,
    "cached_bytes": 512 << 20,
    "needed_blocks": 4096,
    "cached_blocks": 2048,
    "cached_percent": 50,
    "surveyed": True,
    "safe_to_unplug": False,
    "ready_to_boot": None,
    "profile_blocks": None,
    "profile_blocks_cached": None,
    "fetched_bytes": 100 << 20,
    "requests": 33,
    "demand_stalls": 5,
    "stalled_ms": 2500,
    "worst_stall_ms": 1200,
    "waiting_reads": 0,
    "network_problem": "",
    "network_gone_s": 0.0,
    "prefetched_blocks": 400,
    "prefetched_bytes": 100 << 20,
    "prefetch_hits": 300,
    "prefetch_waste": 100,
    "prefetch_waste_percent": 25,
    "prefetch": {"state": "complete", "profile": "boot", "last_problem": ""},
    "failed_reads": 0,
    "damaged": 0,
    "uncached_writes": 0,
    "last_write_problem": "",
    "mirrors": [MIRROR],
    "stale": False,
}


def text(**changes):
    return "\n".join(status_text.mount_lines({**FACTS, **changes}, now=0.0))


def test_a_mount_is_told_in_one_screen():
    shown = text()
    assert "alice/debian@1 on /mnt (process 7)" in shown
    assert "5 reads, 2.5 s in all, 1.2 s at worst" in shown
    assert "400 blocks (100.0 MiB), 300 were used, 100 (25 %) not so far" in shown
    assert "safe to unplug  no: 50 % of the data is here" in shown
    assert "http://one.example/repo: good, 10 blocks, 21 ms to the first byte, 3.0 MiB/s, 45 ms a block" in shown
    assert "NETWORK" not in shown
    assert "attention" not in shown
    assert len(shown.splitlines()) < 20


def test_what_is_here_is_a_lower_bound_until_all_was_looked_at():
    assert "at least" not in text()
    assert "at least 512.0 MiB" in text(surveyed=False)


def test_ready_to_boot_is_told_where_it_is_known():
    assert "ready to boot" not in text()
    assert "ready to boot   no: 3 of 9 blocks" in text(ready_to_boot=False, profile_blocks=9, profile_blocks_cached=3)
    assert "ready to boot   yes: 9 of 9 blocks" in text(ready_to_boot=True, profile_blocks=9, profile_blocks_cached=9)


def test_all_of_it_here_is_safe_to_unplug():
    assert "safe to unplug  yes" in text(safe_to_unplug=True, cached_percent=100)


def test_an_outage_says_why_since_when_and_that_it_passes():
    shown = text(network_problem="connection refused", network_gone_s=75.0, waiting_reads=2)
    since = time.strftime("%H:%M:%S", time.localtime(-75))
    assert f"gone since {since} (75 s): connection refused" in shown
    assert "go on by themselves" in shown
    assert "2 reads wait" in shown


@pytest.mark.parametrize(
    ("fact", "words"), [("failed_reads", "reads failed"), ("damaged", "damaged"), ("uncached_writes", "disk is full")]
)
def test_what_went_wrong_is_told(fact, words):
    assert words in text(**{fact: 3, "last_write_problem": "disk is full"})


def test_a_mirror_that_served_wrong_bytes_is_named_twice():
    liar = {**MIRROR, "name": "http://two.example", "lied": True, "bad_blocks": 3, "last_problem": "another block"}
    shown = text(mirrors=[MIRROR, liar])
    assert "WRONG BYTES were served by http://two.example; none of them was used" in shown
    assert "http://two.example: LIED (another block), 10 blocks" in shown
    assert "3 WRONG BLOCKS" in shown


def test_a_mirror_says_why_it_is_not_asked_and_for_how_long():
    demoted = {**MIRROR, "demoted": True, "demoted_for_s": 9.7, "last_problem": "refused", "failures": 2}
    assert "DEMOTED for 10 s more (refused)" in text(mirrors=[demoted])
    assert "not asked yet" in text(mirrors=[{**MIRROR, "served": 0}])
    assert "asked beside a late one 4 times, 1 times quicker" in text(
        mirrors=[{**MIRROR, "hedges": 4, "hedge_wins": 1}]
    )


def test_the_overview_has_one_line_for_each():
    assert "2048 of 4096 blocks here" in status_text.overview(FACTS)
    assert "NETWORK is gone for 75 s" in status_text.overview({**FACTS, "network_problem": "x", "network_gone_s": 75.0})
    assert "oscirc umount /mnt" in status_text.overview({"stale": True, "mountpoint": "/mnt"})
    assert status_text.overview({"stale": False, "mountpoint": "/mnt", "error": "no answer"}) == "no answer"


GONE = {**FACTS, "network_problem": "connection refused", "network_gone_s": 75.0}


@pytest.mark.parametrize(
    ("paused_by", "mounted", "cause", "brief"),
    [
        ("", GONE, "", "running"),
        ("user", GONE, "user", "paused"),
        ("disk", GONE, "network", "paused (network)"),
        ("disk", FACTS, "disk", "paused (disk)"),
        ("disk", {"stale": True}, "driver", "paused (driver)"),
        ("full disk", GONE, "full disk", "paused (full disk)"),
    ],
)
def test_a_pause_is_told_by_its_cause(paused_by, mounted, cause, brief):
    assert pause.cause_of(paused_by, mounted) == cause
    state = "paused" if paused_by else "running"
    assert pause.briefly(state, cause) == brief
    assert pause.in_words(state, cause, mounted).startswith(brief)


def test_a_guest_that_waits_for_the_network_is_told_why_since_when_and_that_it_goes_on():
    shown = pause.in_words("paused", "network", GONE, now=0.0)
    since = time.strftime("%H:%M:%S", time.localtime(-75))
    assert f"the network is gone since {since} (75 s): connection refused" in shown
    assert "by themselves when it is back, and so does the guest" in shown


def test_delta_packs_are_told_where_there_is_one_and_bad_records_loudly():
    packs = {"packs": 1, "rebuilt_blocks": 698, "saved_bytes": 32 << 20, "refused_records": 0, "failed_records": 0}
    shown = "\n".join(status_text.mount_lines({**FACTS, "packs": packs}, now=0.0))
    assert "698 blocks made from old ones, 32.0 MiB saved" in shown
    assert "WRONG" not in shown
    packs |= {"refused_records": 2, "failed_records": 1}
    shown = "\n".join(status_text.mount_lines({**FACTS, "packs": packs}, now=0.0))
    assert "2 records were WRONG" in shown
    assert "1 could not be used" in shown
    assert "delta packs" not in "\n".join(status_text.mount_lines({**FACTS, "packs": {"packs": 0}}, now=0.0))


def test_a_pack_that_was_refused_is_told_where_none_is_in_use_too():
    packs = {"packs": 0, "rebuilt_blocks": 0, "saved_bytes": 0, "refused_packs": 1}
    shown = "\n".join(status_text.mount_lines({**FACTS, "packs": packs}, now=0.0))
    assert "1 times a pack was WRONG, it was not used" in shown
