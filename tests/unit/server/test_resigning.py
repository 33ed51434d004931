"""The upkeep: re-signing when it is due, whatever the clock did; errors do not end it."""

import asyncio
import threading

from sqlalchemy.exc import OperationalError

from oscirc_server import repository, resigning
from oscirc_server.resigning import keep_up, upkeep

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

    def failing(_installation):
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

    def upkeep(_installation):
        signed.set()
        stop.set()

    monkeypatch.setattr(resigning.lengths, "make_missing", long_work)
    monkeypatch.setattr(resigning, "upkeep", upkeep)

    async def run():
        await asyncio.wait_for(keep_up(installation, stop, period_s=0.001), 15)

    stop = asyncio.Event()
    asyncio.run(run())
    assert signed.is_set()
