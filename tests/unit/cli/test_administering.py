"""Lists that come in pages: all of them are asked for, and a server that leads in circles is refused."""

import pytest

from oscirc import administering
from oscirc_blockstore.errors import DocumentRefusedError


class Server:
    """Answers each question with the next of these pages, and remembers what was asked."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    def call_json(self, method, path):
        self.asked.append((method, path))
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]


def test_the_entries_of_all_pages_come_together_with_what_else_is_said():
    server = Server({"users": [{"name": "a"}], "next": "a/b"}, {"users": [{"name": "c"}], "default": 1, "next": None})
    found = administering.all_pages(server, "users", "users")
    assert found == {"users": [{"name": "a"}, {"name": "c"}], "default": 1}
    assert server.asked == [("GET", "users?limit=200"), ("GET", "users?limit=200&after=a%2Fb")]


def test_a_server_without_pages_has_one():
    assert administering.all_pages(Server({"users": [1]}), "users", "users") == {"users": [1]}


@pytest.mark.parametrize("place", ["x", "", 7])
def test_a_list_that_does_not_come_to_an_end_is_refused(place):
    with pytest.raises(DocumentRefusedError, match="end"):
        administering.all_pages(Server({"users": [1], "next": place}), "users", "users")


def test_a_list_that_always_goes_on_is_given_up(monkeypatch):
    monkeypatch.setattr(administering, "MOST_PAGES", 3)
    server = Server(*({"users": [], "next": f"{number}"} for number in range(9)))
    with pytest.raises(DocumentRefusedError):
        administering.all_pages(server, "users", "users")
    assert len(server.asked) == 3
