"""The upkeep: re-signing when it is due, whatever the clock did; errors do not end it."""

import asyncio
import logging
import threading

from sqlalchemy.exc import OperationalError

from oscirc_server import repository, resigning
from oscirc_server.resigning import AlarmLog, keep_up, upkeep

from .server_world import DAY_S


def version(installation):
    with installation.database.read() as session:
        return repository.current_version(session, "timestamp")


def test_a_round_re_signs_once_a_day(world, installation):
    before = version(installation)
    upkeep(installation)
    world.clock.advance(DAY_S - 1)
    upkeep(installation)
    assert version(installation) == before
    world.clock.advance(1)
    upkeep(installation)
    upkeep(installation)
    assert version(installation) == before + 1


def test_a_clock_that_jumped_back_is_noticed(world, installation):
    before = version(installation)
    world.clock.advance(-400 * DAY_S)
    upkeep(installation)
    assert version(installation) == before + 1
    upkeep(installation)
    assert version(installation) == before + 1


def test_the_loop_survives_errors_and_stops_when_told(installation, monkeypatch):
    rounds = []

    def failing(_installation, _alarm_log):
        rounds.append(1)
        if len(rounds) == 3:
            stop.set()
        raise OperationalError("SELECT", {}, Exception("no database"))

    monkeypatch.setattr(resigning, "upkeep", failing)

    async def run():
        await asyncio.wait_for(keep_up(installation, stop, period_s=0.001), 10)

    stop = asyncio.Event()
    asyncio.run(run())
    assert len(rounds) == 3


def test_signatures_do_not_wait_for_block_lengths_that_are_missing(installation, monkeypatch):
    signed = threading.Event()

    def long_work(_installation, *, stopped):
        assert signed.wait(10)
        stopped()

    def upkeep(_installation, _alarm_log):
        signed.set()
        stop.set()

    monkeypatch.setattr(resigning.lengths, "make_missing", long_work)
    monkeypatch.setattr(resigning, "upkeep", upkeep)

    async def run():
        await asyncio.wait_for(keep_up(installation, stop, period_s=0.001), 15)

    stop = asyncio.Event()
    asyncio.run(run())
    assert signed.is_set()


def test_two_servers_that_find_it_due_at_once_renew_once(world, installation, monkeypatch):
    """The second one's look came before the first one's signature, its turn after it."""
    world.clock.advance(DAY_S)
    before = version(installation)
    real = repository.online_due
    looked = []

    def due(session, now_s):
        answer = real(session, now_s)
        if not looked:
            looked.append(answer)
            with world.open() as other:
                assert repository.renew_online(other) is not None
        return answer

    monkeypatch.setattr(repository, "online_due", due)
    assert repository.renew_online(installation) is None
    assert looked == [True]
    assert version(installation) == before + 1


def test_alarms_are_logged_when_they_come_once_an_hour_and_when_they_end(world, installation, caplog):
    caplog.set_level(logging.INFO, "oscirc_server.resigning")
    said = AlarmLog()

    def told():
        found = [(record.levelname, record.role) for record in caplog.records if hasattr(record, "role")]
        caplog.clear()
        return found

    upkeep(installation, said)
    assert told() == []
    world.clock.advance(310 * DAY_S)
    upkeep(installation, said)
    upkeep(installation, said)
    assert told() == [("WARNING", "targets")]
    world.clock.advance(3600)
    upkeep(installation, said)
    assert told() == [("WARNING", "targets")]
    world.clock.advance(50 * DAY_S)
    upkeep(installation, said)
    assert told() == [("ERROR", "targets")]
    world.administration.resign("targets", world.keys, "a passphrase for tests")
    upkeep(installation, said)
    assert told() == [("INFO", "targets")]
