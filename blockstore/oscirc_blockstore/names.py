"""Names that people choose, checked alike by publisher, server and client.

A name becomes a URL segment, a file name, a TUF role and a TUF path pattern. TUF matches paths with `fnmatch`, so
a publisher called `?lice` would own `alice/*`; a name with `/` or `..` would climb. The alphabet below contains
nothing that any of these readers treats specially.
"""

from __future__ import annotations

import re

from oscirc_blockstore.errors import NameRefusedError

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_VERSION = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,62}")

TUF_TOP_LEVEL_ROLES = frozenset({"root", "targets", "snapshot", "timestamp"})


def _check(name: str, pattern: re.Pattern[str], what: str, alphabet: str) -> str:
    if not pattern.fullmatch(name):
        raise NameRefusedError(
            f"{what} {name[:80]!r} is not allowed",
            hint=f"use 1 to 63 of {alphabet}, starting with a letter or a digit",
        )
    return name


def check_publisher(name: str) -> str:
    """The name itself, or `NameRefusedError`; TUF's own role names are reserved."""
    _check(name, _NAME, "the publisher name", "a-z 0-9 . -")
    if name in TUF_TOP_LEVEL_ROLES:
        raise NameRefusedError(f"the publisher name {name!r} is reserved", hint="choose another name")
    return name


def check_image(name: str) -> str:
    """The name itself, or `NameRefusedError`."""
    return _check(name, _NAME, "the image name", "a-z 0-9 . -")


def check_channel(name: str) -> str:
    """The name itself, or `NameRefusedError`."""
    return _check(name, _NAME, "the channel name", "a-z 0-9 . -")


def check_version(label: str) -> str:
    """The label itself, or `NameRefusedError`."""
    return _check(label, _VERSION, "the version label", "a-z 0-9 . + _ -")


def check_local_name(name: str, what: str) -> str:
    """A name that exists on this workstation only (remote, key, instance), or `NameRefusedError`."""
    return _check(name, _NAME, f"the {what} name", "a-z 0-9 . -")
