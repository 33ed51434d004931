"""What the user prefers: `$XDG_CONFIG_HOME/oscirc/config.toml`, overridden by the environment, overridden by options.

    cache_limit = "20G"       # or "10%" of the disk; not set: no limit of its own
    share_boots = false       # send the first-touch order of boots to the repository
    profile = "boot"          # which boot profile is fetched ahead
    prefetch = true           # false: fetch nothing before it is read
    fill = false              # fetch all the rest while nobody waits
    fill_rate = "2M"          # at most so much a second; not set: as fast as it comes
    auto_update = "notice"    # or "off": do not say at a boot that there is a newer version
    proxy = "http://host:3128"  # or "none"; not set: what the environment says (`proxies`)
    no_proxy = ".example"     # what is reached without it

Rules: no file is the same as an empty one. A key that this version does not know is named in `unknown`, for a warning,
so that a file may be shared with a newer version. A value of the wrong kind is refused, naming the file and the key.
Every key can be overridden by `OSCIRC_` and its name in capitals; an empty variable counts as not set.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.names import check_local_name
from oscirc_blockstore.profile import DEFAULT_NAME
from oscirc_remote import paths
from oscirc_remote.amounts import SizeLimit, parse_limit, parse_rate
from oscirc_remote.local_files import read_bytes
from oscirc_remote.proxies import parse_exceptions, parse_proxy

FILE_NAME = "config.toml"
NOTICE, OFF = "notice", "off"
VARIABLE_PREFIX = "OSCIRC_"
MAX_BYTES = 64 * 1024
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The user's, with a default for what was not said; `unknown` keys stand in the file and mean nothing here."""

    cache_limit: SizeLimit | None = None
    share_boots: bool = False
    profile: str = DEFAULT_NAME
    prefetch: bool = True
    fill: bool = False
    fill_rate: int | None = None
    auto_update: str = NOTICE
    proxy: str = ""
    no_proxy: str = ""
    unknown: tuple[str, ...] = ()


def config_file() -> Path:
    """Where they stand."""
    return paths.config_directory() / FILE_NAME


def load(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Preferences:
    """The preferences in `file` (the user's own unless given) and the environment.

    Raises `LocalError` for a file that cannot be read or is longer than 64 KiB, `UsageError` for one that is not TOML
    and for a value that is not what its key means.
    """
    file = file or config_file()
    document = _parse(file)
    values: dict[str, object] = {}
    for key, value in document.items():
        if key in _READERS:
            values[key] = _read(key, value, f"{file}: {key}")
    for key in _READERS:
        variable = VARIABLE_PREFIX + key.upper()
        word = (os.environ if environment is None else environment).get(variable, "")
        if word:
            values[key] = _read(key, _from_word(key, word), f"the environment's {variable}")
    unknown = tuple(sorted(key[:64] for key in document if key not in _READERS))
    return Preferences(**values, unknown=unknown)  # type: ignore[arg-type]  # each reader gives its field's type


def _parse(file: Path) -> dict[str, object]:
    raw = read_bytes(file, MAX_BYTES)
    if raw is None:
        return {}
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are both ValueErrors
        raise UsageError(f"{file} is not a TOML file: {error}", hint="correct it or move it away") from None


def _read(key: str, value: object, where: str) -> object:
    reader, expected = _READERS[key]
    try:
        return reader(value)
    except TypeError:
        raise UsageError(f"{where} = {str(value)[:40]!r} is not {expected}", hint=f"write {expected}") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint=error.hint or f"write {expected}") from None


def _from_word(key: str, word: str) -> object:
    """A variable's text as the file would hold it: switches become true or false."""
    return _WORDS.get(word.lower(), word) if _READERS[key][0] is _switch else word


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _auto_update(text: str) -> str:
    if text not in (NOTICE, OFF):
        raise UsageError(f"{text[:40]!r} is not a way to be told of updates", hint='write "notice" or "off"')
    return text


def _text(parse: Callable[[str], object], *, or_bytes: bool = False) -> Callable[[object], object]:
    def read(value: object) -> object:
        if or_bytes and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise TypeError
        return parse(value)

    return read


_READERS: dict[str, tuple[Callable[[object], object], str]] = {
    "cache_limit": (_text(parse_limit, or_bytes=True), 'a size such as "20G" or a share such as "10%"'),
    "share_boots": (_switch, "true or false"),
    "profile": (_text(lambda name: check_local_name(name, "profile")), "the name of a boot profile"),
    "prefetch": (_switch, "true or false"),
    "fill": (_switch, "true or false"),
    "fill_rate": (_text(parse_rate, or_bytes=True), 'a size per second such as "2M"'),
    "auto_update": (_text(_auto_update), '"notice" or "off"'),
    "proxy": (_text(parse_proxy), '"http://HOST:PORT" or "none"'),
    "no_proxy": (_text(parse_exceptions), 'names with commas between them, such as "localhost,.example"'),
}
assert set(_READERS) == {each.name for each in fields(Preferences)} - {"unknown"}  # noqa: S101  # one reader per field
