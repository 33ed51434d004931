import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from oscirc import metrics_page

from .test_status_text import FACTS, MIRROR

LABELS = {"mountpoint": "/mnt", "remote": "home", "image": "alice/debian@1"}
MOUNT = {
    **FACTS,
    "uptime_s": 3.5,
    "fetched_blocks": 40,
    "read_calls": 9,
    "read_errors": 0,
    "prefetch": {"state": "complete", "streamed_bytes": 5000, "requests": 2},
    "packs": {
        "packs": 1,
        "rebuilt_blocks": 7,
        "saved_bytes": 900,
        "refused_packs": 4,
        "refused_records": 1,
        "failed_records": 2,
        "received_bytes": 600,
        "requests": 3,
    },
}
INSTANCES = [
    {"name": "web", "state": "paused", "paused_by": "network"},
    {"name": "idle", "state": "stopped", "paused_by": ""},
]


class Given:
    def __init__(self, mounts, instances=()):
        self.mounts, self.instances = mounts, instances

    def collect(self):
        return list(metrics_page.families(self.mounts, self.instances))


def page(mounts, instances=()):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Given(mounts, instances))
    return generate_latest(registry).decode()


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text, name, **labels):
    return samples(text)[name, tuple(sorted(labels.items()))]


def test_counts_and_seconds_are_what_the_mount_said():
    text = page([MOUNT])
    assert value(text, "oscirc_mount_up", **LABELS) == 1
    assert value(text, "oscirc_demand_stalls_total", **LABELS) == 5
    assert value(text, "oscirc_demand_stall_seconds_total", **LABELS) == 2.5
    assert value(text, "oscirc_demand_stall_worst_seconds", **LABELS) == 1.2
    assert value(text, "oscirc_prefetched_blocks_total", **LABELS) == 400
    assert value(text, "oscirc_prefetch_hits_total", **LABELS) == 300
    assert value(text, "oscirc_prefetched_unused_blocks", **LABELS) == 100
    assert value(text, "oscirc_pack_rebuilt_blocks_total", **LABELS) == 7
    assert value(text, "oscirc_pack_refused_packs_total", **LABELS) == 4
    assert value(text, "oscirc_pack_refused_records_total", **LABELS) == 1
    assert value(text, "oscirc_received_bytes_total", **LABELS, kind="packs", mirror="") == 600
    assert value(text, "oscirc_safe_to_unplug", **LABELS) == 0


def test_traffic_is_told_by_mirror_and_what_came_ahead_beside_it():
    other = {**MIRROR, "name": "http://two", "received_bytes": 7, "lied": True, "bad_blocks": 2}
    text = page([{**MOUNT, "mirrors": [MIRROR, other]}])
    received = {key: n for key, n in samples(text).items() if key[0] == "oscirc_received_bytes_total"}
    assert sum(received.values()) == 1000 + 7 + 5000 + 600
    assert value(text, "oscirc_received_bytes_total", **LABELS, kind="blocks", mirror="http://two") == 7
    assert value(text, "oscirc_received_bytes_total", **LABELS, kind="ahead", mirror="") == 5000
    assert value(text, "oscirc_requests_total", **LABELS, kind="ahead", mirror="") == 2
    assert value(text, "oscirc_mirror_bad_blocks_total", **LABELS, mirror="http://two") == 2
    assert value(text, "oscirc_mirror_lied", **LABELS, mirror="http://two") == 1
    assert value(text, "oscirc_mirror_latency_seconds", **LABELS, mirror=MIRROR["name"]) == pytest.approx(0.0214)


def test_a_mount_that_does_not_answer_is_down_and_says_nothing_else():
    dead = {"mountpoint": "/dead", "remote": "home", "image": "alice/debian", "stale": True}
    text = page([MOUNT, dead])
    found = [key for key in samples(text) if ("mountpoint", "/dead") in key[1]]
    assert [key[0] for key in found] == ["oscirc_mount_up"]
    assert samples(text)[found[0]] == 0


def test_instances_tell_their_state_and_why_they_are_paused():
    text = page([], INSTANCES)
    assert value(text, "oscirc_instance_state", instance="web", state="paused") == 1
    assert value(text, "oscirc_instance_paused", instance="web", cause="network") == 1
    assert ("oscirc_instance_paused", (("cause", ""), ("instance", "idle"))) not in samples(text)


def test_labels_that_somebody_else_chose_cannot_break_the_page():
    nasty = 'a"b\\c\nd{x="1"} 7\n# HELP oscirc_mount_up no'
    text = page([{**MOUNT, "mountpoint": nasty, "mirrors": [{**MIRROR, "name": nasty}]}])
    assert value(text, "oscirc_mount_up", **{**LABELS, "mountpoint": nasty}) == 1
    assert value(text, "oscirc_mirror_lied", **{**LABELS, "mountpoint": nasty, "mirror": nasty}) == 0


def test_every_family_has_help_and_type_and_a_name_as_prometheus_wants_it():
    text = page([MOUNT], INSTANCES)
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge")
        assert re.fullmatch(r"oscirc_[a-z_]+", family.name)
        assert not re.search(r"_(ms|kb|mb|milliseconds)(_|$)", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")


def test_two_mounts_of_one_image_are_told_apart():
    text = page([MOUNT, {**MOUNT, "mountpoint": "/other", "demand_stalls": 1}])
    assert value(text, "oscirc_demand_stalls_total", **{**LABELS, "mountpoint": "/other"}) == 1
    assert value(text, "oscirc_demand_stalls_total", **LABELS) == 5
