"""Pictures of recorded boots: what is asked for, when one is not sent and what is said then, whose words they have."""

import pytest
from support.pictures import chunk, header, picture

from oscirc import screenshots
from oscirc_blockstore import png
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, UnreachableError, UsageError
from oscirc_blockstore.png_making import Picture
from oscirc_publisher import screenshots as sending
from oscirc_publisher.accelerating import VersionName

DISK = digest_of(b"disk")
NAME = VersionName("alice", "debian", "12.1")
BLANK = Picture(40, 20, bytes(3 * 800))
SHOWN = Picture(40, 20, bytes(3 * 400) + b"\xff" * 3 * 400)


def wish(**options):
    return screenshots.wish(**{"wanted": True, "alt": "", "blank_too": False} | options)


def test_what_makes_no_sense_is_refused_before_anything_is_booted(tmp_path):
    for options in (
        {"wanted": False, "alt": "words"},
        {"wanted": False, "blank_too": True},
        {"boots": False},
        {"alt": " \t"},
        {"alt": "\u202e"},
        {"alt": "two\nlines"},
        {"alt": "a" * 301},
        {"wanted": False, "alt": "words", "file": tmp_path},
    ):
        with pytest.raises(UsageError):
            wish(**options)
    assert not wish(wanted=False).wanted
    assert wish(wanted=False, file=tmp_path).wanted


def test_a_picture_becomes_a_file(capsys):
    look = wish()
    assert look.png() is None
    look.look(SHOWN)
    assert png.check(look.png()) == png.PictureSize(40, 20)
    assert capsys.readouterr().err == ""


def test_a_blank_one_is_told_of_and_taken_only_if_the_user_insists(capsys):
    look, insisting = wish(), wish(blank_too=True)
    look.look(BLANK)
    insisting.look(BLANK)
    assert look.png() is None
    said = capsys.readouterr().err
    assert "showed nothing but one colour" in said
    assert "--blank-screenshot" in said
    assert png.check(insisting.png())
    assert capsys.readouterr().err == ""


def test_one_that_is_too_large_is_told_of(capsys, monkeypatch):
    monkeypatch.setattr(png, "MAX_BYTES", 10)
    look = wish()
    look.look(SHOWN)
    assert look.png() is None
    assert "would have" in capsys.readouterr().err


def test_words_are_the_users_or_say_what_was_waited_for():
    assert wish().words(NAME, "circuit login:") == "Console of alice/debian 12.1 at its login prompt"
    assert wish().words(NAME, "Reached target") == "Console of alice/debian 12.1 after its start"
    assert wish(alt=" mine ").words(NAME, "login:") == "mine"


class Served:
    """A server's answers: one screenshot is listed."""

    def __init__(self, listed=(), failure=None):
        self.listed, self.failure, self.sent = listed, failure, []

    def call_json(self, method, path):
        assert (method, path) == ("GET", "images/alice/debian/versions/12.1/accelerators")
        return {"accelerators": list(self.listed)}

    def call(self, method, path, body):
        assert body.size
        if self.failure is not None:
            raise self.failure
        self.sent.append((method, path))


def small():
    look = wish()
    look.look(SHOWN)
    return look.png()


def test_it_is_sent_once(capsys):
    server = Served()
    sent = screenshots.send(server, NAME, DISK, "words", small())
    assert (sent.name, sent.alt, sent.uploaded) == ("console", "words", True)
    ((method, path),) = server.sent
    assert method == "PUT"
    place, _, digest = path.partition("?sha256=")
    assert place == "images/alice/debian/versions/12.1/accelerators/screenshot/console"
    entry = {"kind": "screenshot", "name": "console", "sha256": digest, "length": 9, "index_length": 0}
    again = Served([entry])
    assert not screenshots.send(again, NAME, DISK, "words", small()).uploaded
    assert again.sent == []
    assert sending.add(again, NAME, DISK, "console", "other words", small())
    screenshots.tell(sent)
    assert "screenshot console: " in capsys.readouterr().err


def test_a_server_that_does_not_take_it_is_a_warning_and_one_that_is_away_an_error(capsys):
    refusing = Served(failure=DocumentRefusedError("no kind of accelerator: 'screenshot'"))
    assert screenshots.send(refusing, NAME, DISK, "words", small()) is None
    assert "no screenshot: no kind" in capsys.readouterr().err
    with pytest.raises(UnreachableError):
        screenshots.send(Served(failure=UnreachableError("away")), NAME, DISK, "words", small())


def test_a_file_of_the_users_loses_what_is_not_the_picture(tmp_path, monkeypatch):
    file = tmp_path / "screen.png"
    file.write_bytes(picture(between=chunk(b"tEXt", b"Author\0me")))
    assert screenshots.picture_in(file) == picture()
    for raw in (b"GIF89a", picture(head=header(interlaced=1)), picture(behind=b"x")):
        file.write_bytes(raw)
        with pytest.raises(UsageError, match=r"screen\.png"):
            screenshots.picture_in(file)
    with pytest.raises(LocalError):
        screenshots.picture_in(tmp_path / "none.png")
    monkeypatch.setattr(screenshots, "MAX_FILE_BYTES", 10)
    file.write_bytes(picture())
    with pytest.raises(UsageError, match="longer than"):
        screenshots.picture_in(file)


def entry(**changes):
    plain = {"width": 3, "height": 2, "alt": "words", "path": "screenshots/x.png"}
    return {"kind": "screenshot", "name": "desktop", "sha256": "0" * 64, "picture": plain | changes}


def test_what_the_server_lists_is_taken_within_bounds():
    served = Served([{"kind": "profile", "name": "boot"}, entry()])
    assert sending.listed(served, NAME) == [sending.Listed("desktop", 3, 2, "words", "screenshots/x.png")]
    for bad in (
        entry(alt="\x1b[2J"),
        entry(width=0),
        entry(height="2"),
        entry() | {"picture": None},
        entry() | {"kind": 5},
    ):
        with pytest.raises(DocumentRefusedError):
            sending.listed(Served([bad]), NAME)


def test_after_a_publication_nothing_seen_is_told_of(capsys):
    assert screenshots.add_to_published(Served(), NAME, DISK, wish(wanted=False), "login:") is None
    assert capsys.readouterr().err == ""
    assert screenshots.add_to_published(Served(), NAME, DISK, wish(), "login:") is None
    assert "oscirc record REF --screenshot" in capsys.readouterr().err
    look = wish()
    look.look(SHOWN)
    assert screenshots.add_to_published(Served(), NAME, DISK, look, "login:").uploaded
