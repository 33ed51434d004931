"""The window on a scripted link: so many bytes per second, such a round trip, and one queue at its bottleneck."""

import heapq

import pytest

from oscirc_remote.pacing import CEILING, FIRST_WINDOW, FLOOR, SLACK_FRAMES, AheadWindow

FRAME = 140_000


class Link:
    """Keeps as many frames under way as the window allows."""

    def __init__(self, rate, round_trip_s):
        self.rate, self.round_trip_s = rate, round_trip_s
        self.now, self.busy_until = 1000.0, 0.0
        self.pacing = AheadWindow()
        self.under_way = []
        self.waits = []
        self.bytes = 0

    def depart(self):
        ready = self.now + self.round_trip_s
        begins = max(ready, self.busy_until)  # behind what others asked for before
        self.busy_until = begins + FRAME / self.rate
        self.waits.append(begins - ready)
        departure = self.pacing.departed(self.now)
        heapq.heappush(self.under_way, (self.busy_until, departure, begins - self.now))

    def run(self, frames):
        for _ in range(frames):
            while len(self.under_way) < self.pacing.window():
                self.depart()
            self.now, departure, first_byte_s = heapq.heappop(self.under_way)
            self.bytes += FRAME
            self.pacing.landed(departure, self.now, FRAME, first_byte_s)
        return self


MBIT = 1e6 / 8


@pytest.mark.parametrize("rate", [20 * MBIT, 100 * MBIT, 1000 * MBIT])
@pytest.mark.parametrize("round_trip_s", [0.001, 0.02, 0.1, 0.2])
def test_the_window_keeps_a_link_busy_without_filling_its_queue(rate, round_trip_s):
    link = Link(rate, round_trip_s).run(300)
    began, before = link.now, link.bytes
    link.waits.clear()
    link.run(200)
    needed = rate * round_trip_s / FRAME + 1
    reachable = rate * min(1, CEILING / needed)
    assert (link.bytes - before) / (link.now - began) > 0.85 * reachable
    assert FLOOR <= link.pacing.window() <= min(CEILING, needed + SLACK_FRAMES + 1)
    assert max(link.waits) <= (SLACK_FRAMES + 1) * FRAME / rate + 0.1 * round_trip_s  # what a read may lose by it


def test_before_anything_is_known_the_window_is_a_guess():
    pacing = AheadWindow()
    assert pacing.window() == FIRST_WINDOW
    assert pacing.rate == pacing.round_trip_s == 0


def test_the_window_grows_when_the_link_carries_more():
    link = Link(20 * MBIT, 0.1).run(200)
    narrow = link.pacing.window()
    link.rate = 200 * MBIT
    assert link.run(300).pacing.window() >= 2 * narrow


def test_the_window_shrinks_when_answers_come_late():
    link = Link(100 * MBIT, 0.1).run(200)
    wide = link.pacing.window()
    link.rate = 5 * MBIT
    link.run(30)
    assert link.pacing.window() <= wide / 2
    link.run(200)
    assert link.pacing.window() <= FLOOR + 2


def test_an_old_rate_is_forgotten():
    pacing = AheadWindow()
    pacing.streamed(1000.0, 10_000_000, 0.1)
    assert pacing.rate == 1e8
    pacing.streamed(1020.0, 10_000_000, 1.0)
    assert pacing.rate == 1e7


def test_a_small_answer_tells_the_round_trip_only():
    pacing = AheadWindow()
    pacing.landed(pacing.departed(1000.0), 1000.1, 4096, 0.1)
    assert pacing.round_trip_s == 0.1
    assert pacing.rate == 0
