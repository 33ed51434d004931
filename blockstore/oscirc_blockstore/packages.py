"""Which packages a system has, by the files in which its package manager notes them: text, read without running it.

Debian's `/var/lib/dpkg/status` (deb-status(5)) and Alpine's `/lib/apk/db/installed`. What rpm keeps is a database of
another kind, which is not read. Everything is a publisher's: lines and packages are bounded, and what is no package
entry is passed over. A package's size is what its manager says that it takes installed; it may be unknown, or a lie.
`/etc/os-release` (os-release(5)) says what the system calls itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from oscirc_blockstore.errors import DocumentRefusedError

MAX_PACKAGES = 200_000
MAX_FIELD_CHARS = 200
MAX_SIZE_DIGITS = 15
MAX_DATABASE_BYTES = 64 << 20
MAX_OS_RELEASE_BYTES = 64 << 10
OS_RELEASE_PATHS = ("etc/os-release", "usr/lib/os-release")
_UNPACKED = frozenset({"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"})


@dataclass(frozen=True, slots=True)
class Package:
    """What is noted of an installed package; `size` in bytes, None where that is not said."""

    version: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package of which the two versions differ; None where it is not installed. `size`: bytes that the new version
    takes installed, or the old one where it was removed; None where that is not known.
    """

    name: str
    old: str | None
    new: str | None
    size: int | None = None


def parse_dpkg(raw: bytes) -> dict[str, Package]:
    """By name, what is unpacked; packages of several architectures have theirs behind a colon."""
    found: list[tuple[str, str, Package]] = []
    for stanza in _stanzas(raw, ": "):
        status = stanza.get("Status", "").split()
        if "Package" in stanza and "Version" in stanza and status and status[-1] in _UNPACKED:
            package = Package(stanza["Version"], _size(stanza.get("Installed-Size", ""), 1024))
            found.append((stanza["Package"], stanza.get("Architecture", ""), package))
            _check_count(found)
    twice = {name for name, count in Counter(name for name, _, _ in found).items() if count > 1}
    return {f"{name}:{arch}" if name in twice else name: package for name, arch, package in found}


def parse_apk(raw: bytes) -> dict[str, Package]:
    """By name."""
    found: dict[str, Package] = {}
    for stanza in _stanzas(raw, ":"):
        if "P" in stanza and "V" in stanza:
            found[stanza["P"]] = Package(stanza["V"], _size(stanza.get("I", ""), 1))
            _check_count(found)
    return found


DATABASES: Mapping[str, Callable[[bytes], dict[str, Package]]] = {
    "var/lib/dpkg/status": parse_dpkg,
    "lib/apk/db/installed": parse_apk,
    "usr/lib/apk/db/installed": parse_apk,
}
UNREAD_DATABASES = (
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "var/lib/pacman/local",
)


def parse_os_release(raw: bytes) -> str:
    """What the system calls itself, on one line; empty where it does not say."""
    found: dict[str, str] = {}
    for line in raw[:MAX_OS_RELEASE_BYTES].decode(errors="replace").splitlines():
        key, mark, value = line.partition("=")
        if mark:
            found[key.strip()] = value.strip().strip("\"'")[:MAX_FIELD_CHARS]
    return found.get("PRETTY_NAME") or " ".join(filter(None, (found.get("NAME"), found.get("VERSION_ID"))))


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> list[PackageChange]:
    """What differs of two lists of versions, by name."""
    return [
        PackageChange(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def compare_installed(old: Mapping[str, Package], new: Mapping[str, Package]) -> list[PackageChange]:
    """Which packages have another version, the largest first, then by name; of unknown size last."""
    changes = []
    for change in compare(versions(old), versions(new)):
        package = new.get(change.name) or old[change.name]
        changes.append(replace(change, size=package.size))
    return sorted(changes, key=lambda change: 1 if change.size is None else -change.size)


def versions(installed: Mapping[str, Package]) -> dict[str, str]:
    """Name to version."""
    return {name: package.version for name, package in installed.items()}


def _size(text: str, unit: int) -> int | None:
    """A number of units in bytes; None for what is none, or is more than any disk has."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_SIZE_DIGITS):
        return None
    return int(text) * unit


def _stanzas(raw: bytes, mark: str) -> Iterator[dict[str, str]]:
    """Groups of `key`, `mark`, value lines between empty ones; lines that go on another are passed over."""
    if len(raw) > MAX_DATABASE_BYTES:
        raise DocumentRefusedError("a list of packages that is too long")
    stanza: dict[str, str] = {}
    for line in raw.split(b"\n"):
        if not line.strip():
            if stanza:
                yield stanza
            stanza = {}
        elif not line[:1].isspace():
            text = line[: 2 * MAX_FIELD_CHARS].decode(errors="replace")
            key, found, value = text.partition(mark.strip())
            if found and len(stanza) < MAX_FIELD_CHARS:
                stanza.setdefault(key, value.strip()[:MAX_FIELD_CHARS])
    if stanza:
        yield stanza


def _check_count(found: list[tuple[str, str, Package]] | dict[str, Package]) -> None:
    if len(found) > MAX_PACKAGES:
        raise DocumentRefusedError("more packages than any system has")
