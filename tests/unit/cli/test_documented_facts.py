"""`docs/observability.md`, `status --json` and `metrics` name the same numbers: none is missing in any of them."""

import collections
import dataclasses
import pathlib
import re
import types

import pytest

from oscirc import metrics_page, mount_facts, status_text
from oscirc_remote.status import MirrorStatus, PackStatus, PrefetchStatus

from .test_metrics_page import MOUNT, page, samples
from .test_status_text import FACTS

PAGE = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "observability.md").read_text()


def table(title):
    """The rows below a heading: the fact's name, and the metric's or nothing."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (?:`([a-z_]+)`)?[^|]* \| [^|]+ \|$", section, re.MULTILINE)
    assert rows
    return dict(rows)


def described():
    """The facts of a mount, as they are made of a driver's answer."""
    reader = collections.defaultdict(int, cache=collections.defaultdict(int, mirrors=[]), prefetch={}, packs={})
    status = types.SimpleNamespace(
        uptime_s=0.0,
        read_ahead_kb=0,
        reader=reader,
        driver=types.SimpleNamespace(reads=0, inline=0, errors=0, last_error=""),
    )
    record = types.SimpleNamespace(
        mountpoint="/mnt", image="alice/debian", version="1", remote="home", manifest_digest="ab", pid=1
    )
    return mount_facts.described(record, status)


def fields(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_fact_of_a_mount_is_documented_and_no_other():
    assert set(table("A mount")) == set(described())


def test_every_fact_of_a_mirror_is_documented_and_no_other():
    assert set(table("Its mirrors")) == fields(MirrorStatus)


def test_every_fact_of_fetching_ahead_is_documented_and_no_other():
    assert set(table("What it fetches ahead")) == fields(PrefetchStatus)


def test_every_fact_of_delta_packs_is_documented_and_no_other():
    assert set(table("What delta packs did")) == fields(PackStatus)


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("A mount", metrics_page.OF_MOUNTS),
        ("What delta packs did", metrics_page.OF_PACKS),
        ("Its mirrors", (*metrics_page.OF_MIRRORS, *metrics_page.TRAFFIC)),
    ],
)
def test_the_metrics_that_are_documented_are_those_that_there_are(title, shown):
    there = {each.fact: f"oscirc_{each.name}{'_total' if each.counts else ''}" for each in shown}
    assert {fact: metric for fact, metric in table(title).items() if metric} == there


def test_every_metric_of_the_page_is_documented_under_its_own_name():
    told = set(re.findall(r"`(oscirc_[a-z_]+)`", PAGE))
    assert {name for name, _ in samples(page([MOUNT], [{"name": "a", "state": "paused", "paused_by": "disk"}]))} == told


NAMED = {
    "bytes": "received_bytes",
    "requests": "requests",
    "stalls": "demand_stalls",
    "stalls in all": "stalled_ms",
    "the worst stall": "worst_stall_ms",
    "prefetch hits": "prefetch_hits",
    "prefetch waste": "prefetch_waste",
}


@pytest.mark.parametrize("number", NAMED)
def test_what_everybody_asks_for_is_in_the_facts_the_metrics_and_the_documentation(number):
    fact = NAMED[number]
    everywhere = {**table("A mount"), **{f: m for f, m in table("Its mirrors").items() if m}}
    assert everywhere[fact] in {name for name, _ in samples(page([MOUNT]))}
    assert fact in described() or fact in fields(MirrorStatus)


def test_a_person_is_told_them_too():
    shown = "\n".join(status_text.mount_lines(FACTS, now=0.0))
    for told in ("33 requests", "5 reads, 2.5 s in all, 1.2 s at worst", "300 were used", "100 (25 %) not so far"):
        assert told in shown
