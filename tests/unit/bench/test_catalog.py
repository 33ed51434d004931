"""The catalog's step with several clients at once: times of all, or none; no server is started here."""

import threading

import catalog
import pytest
from catalog import CLIENTS, Times

ASKED = [{"q": str(number)} for number in range(2 * CLIENTS + 3)]


def answered(_port, _kind, asked):
    return Times(tuple(1.0 for _ in asked)), Times(())


def test_the_times_are_those_of_all_clients(monkeypatch):
    monkeypatch.setattr(catalog, "ask", answered)
    assert len(catalog.together(1, "page", ASKED).values) == len(ASKED)


def test_a_client_that_failed_is_not_left_out_of_the_times(monkeypatch):
    def one_fails(port, kind, asked):
        if asked[0] == ASKED[3]:
            raise ConnectionError
        return answered(port, kind, asked)

    monkeypatch.setattr(catalog, "ask", one_fails)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # where the client's own failure goes
    with pytest.raises(AssertionError):
        catalog.together(1, "page", ASKED)


def test_a_client_that_stopped_early_is_told(monkeypatch):
    monkeypatch.setattr(catalog, "ask", lambda port, kind, asked: answered(port, kind, asked[:1]))
    with pytest.raises(AssertionError):
        catalog.together(1, "page", ASKED)
