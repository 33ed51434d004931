"""The status page tells everybody how long what is signed is good, what is kept and what was served; no secrets."""

import pytest

from oscirc_server.services import figures
from oscirc_server.web.words import in_words, span

from .server_world import DAY_S, block

JSON = {"Accept": "application/json"}


def facts_of(http):
    answer = http.get("/status", headers=JSON)
    assert answer.status_code == 200
    return answer.json()


def test_everybody_sees_versions_and_expiries_of_roles_in_words(http, world):
    page = http.get("/status")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "All is well." in page.text
    assert "in 7 days" in page.text or "in 6 days" in page.text
    assert [role["role"] for role in facts_of(http)["roles"][:4]] == ["root", "targets", "snapshot", "timestamp"]
    assert str(world.data) not in page.text


def test_what_expires_soon_is_told_by_a_word(http, world):
    roles = {role["role"]: role for role in facts_of(http)["roles"]}
    world.clock.advance(roles["targets"]["left_s"] - 5 * DAY_S)
    page = http.get("/status")
    assert 'class="severity critical">critical<' in page.text
    assert "in 5 days" in page.text
    assert facts_of(http)["severity"] in ("critical", "expired")


def test_deduplication_is_the_data_of_all_versions_over_each_block_once(http, api, alice):
    same = block("a")
    for version in ("1", "2"):
        disk = alice.build("debian", [same, block(version)])
        assert api.publish(alice, "debian", version, disk).status_code == 200
    storage = facts_of(http)["storage"]
    assert storage["logical_bytes"] == 4 * 65536
    assert storage["unique_bytes"] >= 3 * 65536  # and the nodes
    assert storage["deduplication_ratio"] == round(storage["logical_bytes"] / storage["unique_bytes"], 2)


def test_rows_are_counted_once_a_minute_however_often_somebody_asks(installation, api, alice):
    now_s = 0.0
    counted = figures.CountedFigures(installation, lambda: now_s)
    assert counted.current().blocks == 0
    assert counted.current().ratio is None
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    assert counted.current().blocks == 0
    now_s = figures.COUNT_EVERY_S
    found = counted.current()
    assert found.blocks > 0
    assert [(month.name, month.logical_bytes) for month in found.months] == [("2027-01", found.logical_bytes)]
    assert found.months[-1].stored_bytes == found.stored_bytes


def test_traffic_is_what_this_process_has_answered(http):
    before = facts_of(http)["traffic_of_this_process"]
    size = len(http.get("/").content)
    after = facts_of(http)["traffic_of_this_process"]
    assert after["requests"] == before["requests"] + 2
    assert after["sent_bytes"] >= before["sent_bytes"] + size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (59, "now"),
        (60, "in 1 minute"),
        (-7200, "2 hours ago"),
        (DAY_S, "in 24 hours"),
        (5 * DAY_S, "in 5 days"),
        (-90, "1 minute ago"),
    ],
)
def test_times_are_told_in_words(seconds, words):
    assert in_words(seconds) == words
    assert span(abs(seconds)) in words or words == "now"
