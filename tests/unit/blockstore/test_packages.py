"""Lists of packages as dpkg and apk write them, and whatever else stands in such files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import packages
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.packages import (
    Package,
    PackageChange,
    compare,
    compare_installed,
    parse_apk,
    parse_dpkg,
    parse_os_release,
    versions,
)

STATUS = b"""Package: bash
Status: install ok installed
Installed-Size: 7163
Architecture: amd64
Version: 5.2.15-2+b13
Depends: base-files (>= 2.1.12)
Description: GNU Bourne Again SHell
 Version: 9 of a description is no version
 .
 Status: neither

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: libc6
Status: hold ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9

Package: half
Status: install ok half-configured
Version: 3
"""
APK = b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nS:383\nI:622592\nF:lib\nR:libc.so\n\nP:busybox\nV:1.36.1-r5\n"


def test_what_dpkg_has_unpacked_is_installed_and_what_is_left_of_a_removed_package_is_not():
    assert parse_dpkg(STATUS) == {
        "bash": Package("5.2.15-2+b13", 7163 << 10),
        "libc6:amd64": Package("2.36-9"),
        "libc6:i386": Package("2.36-9"),
        "half": Package("3"),
    }


def test_apk_names_and_versions():
    assert parse_apk(APK) == {"musl": Package("1.2.4-r2", 622592), "busybox": Package("1.36.1-r5")}
    assert versions(parse_apk(APK)) == {"musl": "1.2.4-r2", "busybox": "1.36.1-r5"}


@pytest.mark.parametrize("size", ["", "-5", "1e3", "0x10", "4 MB", "\u0663", "9" * 16])
def test_what_is_no_size_is_not_known(size):
    assert parse_apk(f"P:a\nV:1\nI:{size}\n".encode()) == {"a": Package("1")}
    dpkg = f"Package: a\nStatus: install ok installed\nVersion: 1\nInstalled-Size: {size}\n"
    assert parse_dpkg(dpkg.encode()) == {"a": Package("1")}


def test_installed_packages_differ_the_largest_first_then_by_name_and_of_unknown_size_last():
    old = {"a": Package("1", 10), "gone": Package("1", 500), "same": Package("1", 900), "odd": Package("1", 7000)}
    new = {
        "a": Package("2", 30),
        "b": Package("1", 500),
        "big": Package("1", 4000),
        "same": Package("1", 800),
        "odd": Package("2"),
        "empty": Package("1", 0),
    }
    assert compare_installed(old, new) == [
        PackageChange("big", None, "1", 4000),
        PackageChange("b", None, "1", 500),
        PackageChange("gone", "1", None, 500),
        PackageChange("a", "1", "2", 30),
        PackageChange("empty", None, "1", 0),
        PackageChange("odd", "1", "2"),
    ]


def test_differences_are_named_in_order():
    assert compare({"a": "1", "b": "1", "c": "1"}, {"d": "2", "b": "2", "c": "1"}) == [
        PackageChange("a", "1", None),
        PackageChange("b", "1", "2"),
        PackageChange("d", None, "2"),
    ]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "Debian GNU/Linux 12 (bookworm)"),
        (b"NAME=Alpine\nVERSION_ID=3.20\n", "Alpine 3.20"),
        (b"# nothing\n", ""),
        (b"PRETTY_NAME=" + b"x" * 1000, "x" * packages.MAX_FIELD_CHARS),
    ],
)
def test_a_system_says_what_it_is(raw, name):
    assert parse_os_release(raw) == name


def test_more_packages_than_any_system_has_are_refused(monkeypatch):
    monkeypatch.setattr(packages, "MAX_PACKAGES", 3)
    many = b"\n".join(b"P:p%d\nV:1\n" % number for number in range(4))
    with pytest.raises(DocumentRefusedError, match="more packages"):
        parse_apk(many)
    dpkg = b"\n".join(b"Package: p%d\nStatus: install ok installed\nVersion: 1\n" % number for number in range(4))
    with pytest.raises(DocumentRefusedError, match="more packages"):
        parse_dpkg(dpkg)


def test_a_list_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(packages, "MAX_DATABASE_BYTES", 10)
    with pytest.raises(DocumentRefusedError, match="too long"):
        parse_dpkg(STATUS)


@given(st.binary(max_size=500) | st.lists(st.sampled_from([*STATUS.split(b"\n"), *APK.split(b"\n")])).map(b"\n".join))
def test_anything_else_is_read_as_what_it_has(raw):
    for parse in (parse_dpkg, parse_apk):
        for name, package in parse(raw).items():
            assert len(name) <= 2 * packages.MAX_FIELD_CHARS + 1
            assert len(package.version) <= packages.MAX_FIELD_CHARS
            assert package.size is None or package.size >= 0
    assert len(parse_os_release(raw)) <= 2 * packages.MAX_FIELD_CHARS + 1
