"""Which packages a system has, by the files in which its package manager notes them: text, read without running it.

Debian's `/var/lib/dpkg/status` (deb-status(5)) and Alpine's `/lib/apk/db/installed`. What rpm keeps is a database of
another kind, which is not read. Everything is a publisher's: lines and packages are bounded, and what is no package
entry is passed over. `/etc/os-release` (os-release(5)) says what the system calls itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from oscirc_blockstore.errors import DocumentRefusedError

MAX_PACKAGES = 200_000
MAX_FIELD_CHARS = 200
MAX_DATABASE_BYTES = 64 << 20
MAX_OS_RELEASE_BYTES = 64 << 10
OS_RELEASE_PATHS = ("etc/os-release", "usr/lib/os-release")
_UNPACKED = frozenset({"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"})


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package of which the two versions differ; None where it is not installed."""

    name: str
    old: str | None
    new: str | None


def parse_dpkg(raw: bytes) -> dict[str, str]:
    """Name to version of what is unpacked; packages of several architectures have theirs behind a colon."""
    found: list[tuple[str, str, str]] = []
    for stanza in _stanzas(raw, ": "):
        status = stanza.get("Status", "").split()
        if "Package" in stanza and "Version" in stanza and status and status[-1] in _UNPACKED:
            found.append((stanza["Package"], stanza.get("Architecture", ""), stanza["Version"]))
            _check_count(found)
    twice = {name for name, count in Counter(name for name, _, _ in found).items() if count > 1}
    return {f"{name}:{arch}" if name in twice else name: version for name, arch, version in found}


def parse_apk(raw: bytes) -> dict[str, str]:
    """Name to version."""
    found: dict[str, str] = {}
    for stanza in _stanzas(raw, ":"):
        if "P" in stanza and "V" in stanza:
            found[stanza["P"]] = stanza["V"]
            _check_count(found)
    return found


DATABASES: Mapping[str, Callable[[bytes], dict[str, str]]] = {
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
    """What differs, by name."""
    return [
        PackageChange(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


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


def _check_count(found: list[tuple[str, str, str]] | dict[str, str]) -> None:
    if len(found) > MAX_PACKAGES:
        raise DocumentRefusedError("more packages than any system has")
