import asyncio

import pytest

from oscirc_vmlaunch import watching
from oscirc_vmlaunch.accelerators import Choice
from oscirc_vmlaunch.launching import RunningMachine
from oscirc_vmlaunch.watching import Happening, Patience, watch

IMPATIENT = Patience(first_s=0.001, longest_s=0.004)


@pytest.fixture
def watched(instances, make_record, spawn, end, fake_qemu):
    """Runs a scenario beside the supervisor of a process that stands for QEMU; the reports it made."""

    def run(scenario, *, status_before="running", **options):
        async def go():
            instance = instances.create(make_record())
            process = spawn("sleep", "60")
            reports = []
            async with fake_qemu(instance.watch_socket) as qemu:
                qemu.reads = 0
                qemu.set_status(status_before)
                qemu.answers["query-blockstats"] = lambda qemu: [
                    {"qdev": "disk", "stats": {"rd_operations": qemu.reads, "wr_operations": 0}}
                ]
                machine = RunningMachine(instance, process, Choice("tcg", "test"))
                supervisor = asyncio.ensure_future(watch(machine, reports.append, patience=IMPATIENT, **options))
                await until(lambda: qemu.asked)
                await scenario(qemu, reports)
                assert not supervisor.done()
                qemu.hang_up()
                process.send(9)
                await supervisor
            return reports

        return asyncio.run(asyncio.wait_for(go(), 30))

    return run


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def fails(qemu, **data):
    qemu.set_status("io-error")
    qemu.emit("BLOCK_IO_ERROR", **{"operation": "read", "nospace": False, "reason": "Input/output error"} | data)
    qemu.emit("STOP")


def after_tries(number):
    """`cont` succeeds in making a request succeed at the given try, and fails again before."""

    def resume(qemu):
        qemu.tries = getattr(qemu, "tries", 0) + 1
        if qemu.tries >= number:
            qemu.reads += 1
            qemu.set_status("running")
        return {}

    return resume


def test_a_guest_whose_network_was_gone_runs_again_by_itself(watched):
    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(3)
        fails(qemu)
        await until(lambda: len(reports) == 2)
        assert qemu.asked.count("cont") == 3

    reports = watched(scenario)
    assert [report.happening for report in reports] == [
        Happening.PAUSED,
        Happening.RUNNING_AGAIN,
        Happening.ENDED,
    ]
    assert "network" in reports[0].message


def test_a_monitor_that_is_lost_when_the_guest_was_let_run_leaves_the_outage_remembered(watched, monkeypatch):
    monkeypatch.setattr(watching, "_RECONNECT_S", 0.01)

    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(1)
        qemu.hangs_up_after.add("cont")
        fails(qemu)
        await until(lambda: len(reports) == 2)
        fails(qemu)
        qemu.tries = 0
        await until(lambda: len(reports) == 4)

    reports = watched(scenario)
    assert [report.happening for report in reports] == [
        *(Happening.PAUSED, Happening.RUNNING_AGAIN) * 2,
        Happening.ENDED,
    ]


def test_a_guest_that_somebody_else_let_run_while_the_monitor_was_lost_runs_again(watched, monkeypatch):
    """Its read has succeeded by the time of the next monitor, and it asks its disk for nothing more."""
    monkeypatch.setattr(watching, "_RECONNECT_S", 0.01)
    network = []

    async def ready():
        return bool(network)

    async def scenario(qemu, reports):
        fails(qemu)
        await until(lambda: reports)
        qemu.hang_up()
        qemu.reads += 1
        qemu.set_status("running")
        network.append("back")
        await until(lambda: len(reports) == 2)
        assert qemu.asked.count("cont") == 0

    assert watched(scenario, storage_ready=ready)[1].happening is Happening.RUNNING_AGAIN


def test_one_that_fails_again_while_the_next_monitor_looks_does_not_run_again(watched, monkeypatch):
    monkeypatch.setattr(watching, "_RECONNECT_S", 0.01)

    async def scenario(qemu, reports):
        statistics = qemu.answers["query-blockstats"]

        def lost_then_seen_to_fail(qemu):
            qemu.hangs_up_after.add("cont")
            qemu.set_status("running")
            qemu.answers["cont"] = lets_run
            qemu.answers["query-blockstats"] = fails_once
            return {}

        def fails_once(qemu):
            said = statistics(qemu)
            qemu.reads += 1
            qemu.set_status("io-error")
            qemu.answers["query-blockstats"] = statistics
            return said

        def lets_run(qemu):
            qemu.hangs_up_after.clear()
            qemu.set_status("running")
            return {}

        qemu.answers["cont"] = lost_then_seen_to_fail
        fails(qemu)
        await until(lambda: qemu.asked.count("cont") == 2)
        asked = len(qemu.asked)
        await until(lambda: len(qemu.asked) > asked + 2)  # it is waited for: nothing has succeeded since
        assert len(reports) == 1
        qemu.reads += 1
        await until(lambda: len(reports) == 2)

    watched(scenario)


def test_a_guest_that_had_paused_before_the_supervisor_came_is_seen(watched):
    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(1)
        await until(lambda: len(reports) == 2)

    assert watched(scenario, status_before="io-error")[0].happening is Happening.PAUSED


def test_a_guest_that_a_user_paused_stays_paused(watched):
    async def scenario(qemu, reports):
        qemu.set_status("paused")
        qemu.emit("STOP")
        asked = len(qemu.asked)
        await until(lambda: len(qemu.asked) > asked)

    reports = watched(scenario)
    assert [report.happening for report in reports] == [Happening.ENDED]


def test_a_user_who_takes_over_meanwhile_has_the_last_word(watched):
    async def scenario(qemu, reports):
        def resume(qemu):
            qemu.set_status("paused")
            return {}

        qemu.answers["cont"] = resume
        fails(qemu)
        await until(lambda: "cont" in qemu.asked)
        asked = len(qemu.asked)
        qemu.emit("STOP")
        await until(lambda: "query-status" in qemu.asked[asked:])
        assert qemu.asked.count("cont") == 1

    assert [report.happening for report in watched(scenario)] == [Happening.PAUSED, Happening.ENDED]


def test_the_clock_stands_still_until_the_storage_is_ready(watched):
    answers = [False, False, True]
    asked = []

    async def ready():
        asked.append(len(answers))
        return answers.pop(0)

    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(1)
        fails(qemu)
        await until(lambda: len(reports) == 2)
        assert qemu.asked.count("cont") == 1

    watched(scenario, storage_ready=ready)
    assert asked == [3, 2, 1]


def test_a_full_disk_is_called_a_full_disk(watched):
    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(10**9)
        fails(qemu, operation="write", nospace=True)
        await until(lambda: reports)

    assert "full" in watched(scenario)[0].message


def test_a_qemu_that_is_busy_for_a_while_does_not_end_the_supervision(watched, monkeypatch):
    usual_s = watching.qmp.COMMAND_DEADLINE_S
    monkeypatch.setattr(watching.qmp, "COMMAND_DEADLINE_S", 0.05)
    monkeypatch.setattr(watching.qmp.Monitor.execute, "__kwdefaults__", {"deadline_s": 0.05})
    monkeypatch.setattr(watching, "_RECONNECT_S", 0.01)

    async def scenario(qemu, reports):
        qemu.silent.add("query-status")
        qemu.emit("STOP")
        await until(lambda: qemu.asked.count("query-status") >= 3)
        monkeypatch.setattr(watching.qmp, "COMMAND_DEADLINE_S", usual_s)
        monkeypatch.setattr(watching.qmp.Monitor.execute, "__kwdefaults__", {"deadline_s": usual_s})
        qemu.silent.clear()
        qemu.answers["cont"] = after_tries(1)
        fails(qemu)
        await until(lambda: len(reports) == 2)

    assert [report.happening for report in watched(scenario)][-1] is Happening.ENDED


def test_a_log_beyond_its_limit_is_set_aside(tmp_path):
    log = tmp_path / "console.log"
    watching._bound(log, 10)
    log.write_bytes(b"0123456789")
    watching._bound(log, 10)
    assert log.read_bytes() == b"0123456789"
    with log.open("ab") as appending:
        appending.write(b"ab")
        appending.flush()
        watching._bound(log, 10)
        assert log.read_bytes() == b""
        appending.write(b"on")
    assert log.read_bytes() == b"on"
    assert (tmp_path / "console.log.old").read_bytes() == b"23456789ab"


def test_who_serves_the_disk_explains_why_it_is_paused(watched):
    async def explain():
        return "the network is gone since noon"

    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(1)
        fails(qemu)
        await until(lambda: len(reports) == 2)

    assert watched(scenario, explain=explain)[0].message == "paused: the network is gone since noon"


def test_a_failed_write_or_silence_is_explained_by_qemu(watched):
    words = iter(["", "never asked for"])

    async def explain():
        return next(words)

    async def scenario(qemu, reports):
        qemu.answers["cont"] = after_tries(1)
        fails(qemu)
        await until(lambda: len(reports) == 2)
        qemu.answers["cont"] = after_tries(10**9)
        fails(qemu, operation="write", nospace=True)
        await until(lambda: len(reports) == 3)

    reports = watched(scenario, explain=explain)
    assert "the network seems to be gone" in reports[0].message
    assert "disk is full" in reports[2].message
