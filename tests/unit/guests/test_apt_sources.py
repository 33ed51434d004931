"""Where a guest's packages come from: both notations of apt, and the choice of suites."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "guests"))

from guestdisks import apt_sources
from guestdisks.apt_sources import Source
from guestdisks.programs import BuildError

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
# a comment inside
Components: main contrib
Signed-By: /usr/share/keyrings/example.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""
ONE_LINE = """\
deb http://archive.example/debian bookworm main  # the archive
deb-src http://archive.example/debian bookworm main
# deb http://off.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://security.example/s bookworm-security main contrib
"""


@pytest.fixture
def apt(tmp_path):
    """Write an apt configuration and return its folder."""

    def write(**files):
        (tmp_path / "sources.list.d").mkdir()
        for name, text in files.items():
            path = tmp_path / ("sources.list" if name == "main" else f"sources.list.d/{name}.sources")
            path.write_text(text)
        return tmp_path

    return write


def test_deb822_paragraphs_are_read_and_switched_off_ones_are_not(apt):
    found = apt_sources.machine_sources(apt(debian=DEB822))
    assert [(source.uri, source.suite) for source in found] == [
        ("http://archive.example/debian", "bookworm"),
        ("http://archive.example/debian", "bookworm-updates"),
        ("http://security.example/debian-security", "bookworm-security"),
    ]
    assert found[0].components == ("main", "contrib")
    assert found[0].signed_by == "/usr/share/keyrings/example.gpg"


def test_embedded_key_is_written_out_in_armour(apt, tmp_path):
    source = apt_sources.machine_sources(apt(debian=DEB822))[2]
    keyring = Path(apt_sources.keyring_path(source, tmp_path))
    assert keyring.read_text().splitlines()[:3] == ["-----BEGIN PGP PUBLIC KEY BLOCK-----", "", "abc"]


def test_one_line_entries_are_read_with_their_options(apt):
    assert apt_sources.machine_sources(apt(main=ONE_LINE)) == [
        Source("http://archive.example/debian", "bookworm", ("main",)),
        Source("http://security.example/s", "bookworm-security", ("main", "contrib"), "/k.gpg"),
    ]


def test_release_comes_alone_and_later_fixes_apart(apt):
    release, later = apt_sources.for_suite(apt_sources.machine_sources(apt(debian=DEB822)), "bookworm")
    assert release.line() == "deb http://archive.example/debian bookworm main contrib"
    assert [source.suite for source in later] == ["bookworm-updates", "bookworm-security"]


def test_machine_of_another_release_lends_its_archives(apt, monkeypatch):
    monkeypatch.setattr(apt_sources, "_own_release", lambda: "bookworm")
    release, later = apt_sources.for_suite(apt_sources.machine_sources(apt(debian=DEB822)), "trixie")
    assert (release.uri, release.suite) == ("http://archive.example/debian", "trixie")
    assert [source.suite for source in later] == ["trixie-updates", "trixie-security"]


def test_machine_without_any_archive_is_told_so(apt, monkeypatch):
    monkeypatch.setattr(apt_sources, "_own_release", lambda: "")
    with pytest.raises(BuildError, match="names no archive of bookworm"):
        apt_sources.for_suite(apt_sources.machine_sources(apt()), "bookworm")
