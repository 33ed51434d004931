import asyncio

import pytest
from qemu.qmp import QMPClient, Runstate

from oscirc_blockstore.errors import DeadlineExceededError, LocalError
from oscirc_vmlaunch import qmp, sockets

DISK = {
    "qdev": "/machine/peripheral/disk/virtio-backend",
    "stats": {"rd_operations": 3, "rd_bytes": 4096, "wr_operations": 1, "wr_bytes": 512},
}


def test_commands_are_named_as_qemu_names_them(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            assert await monitor.status() == "running"
            await monitor.power_down()
            await monitor.pause()
            await monitor.resume()
            return qemu.asked

    assert asyncio.run(go()) == ["query-status", "system_powerdown", "stop", "cont"]


def test_a_refusal_has_qemus_own_words(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            await monitor.execute("blockdev-add")

    with pytest.raises(LocalError, match="no blockdev-add here"):
        asyncio.run(go())


def test_a_command_that_is_not_answered_ends_at_its_deadline(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            qemu.silent.add("stop")
            await monitor.pause(deadline_s=0.05)

    with pytest.raises(DeadlineExceededError, match="stop"):
        asyncio.run(go())


def test_a_monitor_that_is_held_by_another_is_given_up(tmp_path):
    async def go():
        with sockets.listen(tmp_path / "qmp.sock"):  # never accepted, as QEMU does with a second client
            async with qmp.connect(tmp_path / "qmp.sock", deadline_s=0.05):
                pass

    with pytest.raises(DeadlineExceededError) as late:
        asyncio.run(go())
    assert "another oscirc command" in late.value.hint


def test_nothing_there_is_an_error_of_ours(tmp_path):
    async def go():
        async with qmp.connect(tmp_path / "qmp.sock"):
            pass

    with pytest.raises(LocalError, match="nothing answers"):
        asyncio.run(go())


def test_quit_is_content_with_a_qemu_that_just_goes(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            qemu.hangs_up_on.add("quit")
            await monitor.quit()
            qemu.hangs_up_on.add("query-status")
            with pytest.raises(qmp.DisconnectedError):
                await monitor.status()

    asyncio.run(go())


def test_a_qemu_that_ends_just_after_its_greeting_is_an_error_of_ours(fake_qemu, monkeypatch):
    greet = QMPClient._establish_session

    async def greet_and_be_late(client):
        await greet(client)
        while client.runstate is Runstate.RUNNING:
            await client.runstate_changed()

    monkeypatch.setattr(QMPClient, "_establish_session", greet_and_be_late)

    async def go():
        async with fake_qemu() as qemu:
            qemu.hangs_up_after.add("qmp_capabilities")
            async with qmp.connect(qemu.path):
                pass

    with pytest.raises(qmp.DisconnectedError):
        asyncio.run(go())


def test_events_arrive_in_order_and_their_absence_is_bounded(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            assert await monitor.next_event(deadline_s=0) is None
            qemu.emit("RTC_CHANGE")
            qemu.emit("BLOCK_IO_ERROR", operation="read")
            qemu.emit("STOP")
            first = await monitor.next_event(deadline_s=10)
            second = await monitor.next_event(deadline_s=10)
            assert (first, second) == (qmp.Event("BLOCK_IO_ERROR", {"operation": "read"}), qmp.Event("STOP", {}))

    asyncio.run(go())


def test_waiting_for_events_ends_when_qemu_does(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            qemu.emit("SHUTDOWN")
            await monitor.status()
            waiting = asyncio.ensure_future(monitor.next_event(deadline_s=30))
            assert (await waiting).name == "SHUTDOWN"
            qemu.hang_up()
            with pytest.raises(qmp.DisconnectedError):
                await monitor.next_event(deadline_s=30)

    asyncio.run(asyncio.wait_for(go(), 10))


def test_the_queue_of_events_is_bounded(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            for _ in range(1000):
                qemu.emit("STOP")
            await monitor.status()
            return len(monitor.pending_events()), monitor.pending_events()

    assert asyncio.run(go()) == (256, [])


def test_the_disk_is_found_by_its_device(fake_qemu):
    async def go():
        async with fake_qemu() as qemu, qmp.connect(qemu.path) as monitor:
            qemu.answers["query-blockstats"] = [{"qdev": "/machine/peripheral/cdrom"}, DISK]
            statistics = await monitor.block_statistics("disk")
            with pytest.raises(LocalError, match="no disk"):
                await monitor.block_statistics("dis")
            return statistics

    assert asyncio.run(go()) == qmp.BlockStatistics(reads=3, read_bytes=4096, writes=1, written_bytes=512)
