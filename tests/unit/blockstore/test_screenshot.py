import pytest
from support.pictures import HEIGHT, WIDTH, chunk, picture

from oscirc_blockstore import canonical, png, screenshot
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.png import PictureSize
from oscirc_blockstore.screenshot import Screenshot

DISK = digest_of(b"a disk")
ALT = "Console of alice/debian 12.1 at its login prompt"


def document(raw=None, **changes):
    plain = {"format": screenshot.FORMAT, "manifest": DISK.hex(), "alt": ALT, "width": WIDTH, "height": HEIGHT}
    return canonical.serialise(plain | changes) + b"\n" + (picture() if raw is None else raw)


def test_a_screenshot_is_read_as_it_was_written():
    raw = screenshot.build(DISK, f" {ALT}\n", picture())
    assert raw == document()
    assert screenshot.parse(raw) == Screenshot(DISK, ALT, PictureSize(WIDTH, HEIGHT), picture())


BAD = [
    b"",
    picture(),
    document().replace(b"\n", b"", 1),
    document().replace(b'","', b'", "', 1),
    document(format="oscirc-screenshot-2"),
    document(manifest="00"),
    document(more=1),
    document(width=WIDTH + 1),
    document(height=0),
    document(alt=""),
    document(alt="   "),
    document(alt=5),
    document(alt="a" * 301),
    document(alt="two\nlines"),
    document(alt="\u202egnp.exe"),
    document(alt="\u2066a"),
    document(alt="\x1b[2J"),
    document(b""),
    document(picture(behind=b"<html>")),
    document(picture(between=chunk(b"tEXt", b"a\0b"))),
    document(bytes(png.MAX_BYTES + 1)),
    document(alt="a" * 301 * 20),
    bytes(screenshot.MAX_BYTES + 1),
]


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
def test_another_file_is_refused(raw):
    with pytest.raises(DocumentRefusedError):
        screenshot.parse(raw)


def test_words_that_a_page_cannot_show_are_refused_when_it_is_made():
    for alt in ("", "\u202e", "a\x00b", "a" * 301):
        with pytest.raises(DocumentRefusedError):
            screenshot.build(DISK, alt, picture())


def test_markup_is_only_text():
    assert screenshot.parse(document(alt='"><script>')).alt == '"><script>'
