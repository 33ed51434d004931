"""What is said of an image, on the command line: what is refused before a key is asked for, and what a change keeps."""

from datetime import date
from types import MappingProxyType

import pytest

from oscirc.__main__ import main
from oscirc.describing import about_lines, saying
from oscirc_blockstore.about import NOTHING_SAID, About

DESCRIBE = ("describe", "test:alice/debian", "--key", "alice")


def test_a_change_keeps_what_it_does_not_name_and_an_empty_text_takes_back():
    said = About("Debian", "A system.", kind="server", end_of_life=MappingProxyType({"12": "2028-06-30"}))
    change = saying({"title": "", "licence": "MIT"}, ["13=2030-06-30", "2031-01-01"])
    assert change(said) == About(
        "",
        "A system.",
        licence="MIT",
        kind="server",
        end_of_life=MappingProxyType({"12": "2028-06-30", "13": "2030-06-30", "": "2031-01-01"}),
    )
    assert saying({}, ["12="])(said).end_of_life == {}
    assert saying({}, ["a=b=2028-06-30"])(NOTHING_SAID).end_of_life == {"a=b": "2028-06-30"}
    assert saying({}, []) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "say something"),
        (["--title", "a\x1bb"], "control character"),
        (["--homepage", "http://example.org"], "https"),
        (["--end-of-life", "12"], "not a day"),
        (["--end-of-life", "12=2028-02-30"], "not a day"),
        (["--kind", "laptop"], "laptop"),
        (["--summary", "x" * 301], "at most 300"),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_else(options, told, capsys):
    assert main([*DESCRIBE, *options]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("reference", ["alice/debian@1", "alice/debian#stable", "alice/debian@sha256:" + "0" * 64])
def test_what_is_said_is_said_of_all_versions(reference, capsys):
    assert main(["describe", reference, "--key", "alice", "--title", "x"]) == 2
    assert "names more than an image" in capsys.readouterr().err


def test_a_readme_that_no_page_could_show_is_refused(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_bytes(b"x" * 65_537)
    assert main([*DESCRIBE, "--readme", str(file)]) == 2
    assert "more than 65536 bytes" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    assert main([*DESCRIBE, "--readme", str(file)]) == 6
    file.write_text("# A\n\n\U0001f469\u200d\U0001f4bb")
    assert main([*DESCRIBE, "--readme", str(file)]) == 2
    error = capsys.readouterr().err
    assert "U+200D in line 3" in error
    assert "emoji" in error


def test_what_is_said_is_told_in_lines():
    said = About("T", readme="a\nb", licence="MIT", end_of_life=MappingProxyType({"": "2027-01-15"}))
    assert list(about_lines(said, "12", date(2027, 1, 15))) == [
        ("title", "T"),
        ("licence", "MIT"),
        ("support", "until 2027-01-15"),
        ("readme", "2 lines: oscirc show --readme"),
    ]
    assert ("support", "ended on 2027-01-15: no security updates any more") in list(
        about_lines(said, "12", date(2027, 1, 16))
    )
    assert not list(about_lines(None, "12", date(2027, 1, 16)))
