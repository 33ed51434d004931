import asyncio
from types import SimpleNamespace

import pytest

from oscirc import mount_facts, supervision
from oscirc_fusedriver import control_client, records
from oscirc_vmlaunch.watching import Happening, Report


@pytest.fixture
def instance(tmp_path):
    return SimpleNamespace(directory=tmp_path, name="web")


def report(message):
    return Report(Happening.PAUSED, message)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def followed(instance, scenario, monkeypatch):
    """What a follower of the log was told while the scenario ran."""
    monkeypatch.setattr(supervision, "_FOLLOW_S", 0.001)
    told = []

    async def go():
        following = asyncio.ensure_future(supervision.follow(instance.directory / supervision.LOG_NAME, told.append))
        await asyncio.sleep(0)
        await scenario(told)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(go())
    return told


def test_reports_reach_whoever_follows_the_log_and_old_ones_do_not(instance, monkeypatch):
    with supervision.logged(instance) as write:
        write(report("an old story"))

    async def scenario(told):
        with supervision.logged(instance) as write:
            write(report("paused: the network is gone"))
            await until(lambda: told)
            write(report("the guest runs again"))
            await until(lambda: len(told) == 2)

    told = followed(instance, scenario, monkeypatch)
    assert [line.partition(" ")[2] for line in told] == ["paused: the network is gone", "the guest runs again"]


def test_a_log_that_was_begun_anew_is_followed_from_its_start(instance, monkeypatch):
    log = instance.directory / supervision.LOG_NAME
    log.write_text("much that was said before\n")

    async def scenario(told):
        log.write_text("new\n")
        await until(lambda: told)

    assert followed(instance, scenario, monkeypatch) == ["new"]


def test_the_log_is_bounded(instance, monkeypatch):
    monkeypatch.setattr(supervision, "LOG_BYTES", 1000)
    with supervision.logged(instance) as write:
        for number in range(200):
            write(report(f"number {number}"))
    assert sum(file.stat().st_size for file in instance.directory.iterdir()) <= 2000


def test_one_process_supervises_an_instance(instance):
    with supervision.alone(instance) as first, supervision.alone(instance) as second:
        assert (first, second) == (True, False)
    with supervision.alone(instance) as again:
        assert again


def test_the_driver_says_why_reads_fail_and_whether_they_can_go_on(monkeypatch):
    facts = {"network_problem": "connection refused", "network_gone_s": 3.0}
    monkeypatch.setattr(mount_facts, "at", lambda place: facts if place == "/mnt" else {"stale": True})
    assert "connection refused" in supervision.why_reads_fail("/mnt")
    assert "died" in supervision.why_reads_fail("/other")
    facts["network_problem"] = ""
    assert supervision.why_reads_fail("/mnt") == ""

    monkeypatch.setattr(records, "find", lambda place: "record" if str(place) == "/mnt" else None)
    monkeypatch.setattr(control_client, "retry", lambda record: False)
    assert not supervision.disk_answers("/mnt")
    assert supervision.disk_answers("/other")


def test_where_nobody_can_tell_qemu_finds_out_by_itself(monkeypatch):
    def silent(record):
        raise control_client.NoAnswerError("it ends")

    monkeypatch.setattr(records, "find", lambda place: "record")
    monkeypatch.setattr(control_client, "retry", silent)
    assert supervision.disk_answers("/mnt")
