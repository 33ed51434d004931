"""Where oscirc keeps its files on a workstation: the XDG directories, read from the environment at every call."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from oscirc_blockstore.errors import LocalError

_NAME = "oscirc"


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # the XDG specification: a relative path is to be ignored
    return Path(value) if value.startswith("/") else Path.home() / default


def config_directory() -> Path:
    """Preferences: `$XDG_CONFIG_HOME/oscirc`."""
    return _base("XDG_CONFIG_HOME", ".config") / _NAME


def cache_directory() -> Path:
    """Only what can be fetched or found again: `$XDG_CACHE_HOME/oscirc`."""
    return _base("XDG_CACHE_HOME", ".cache") / _NAME


def data_directory() -> Path:
    """Keys, trust state, receipts, instances: `$XDG_DATA_HOME/oscirc`."""
    return _base("XDG_DATA_HOME", ".local/share") / _NAME


def runtime_directory() -> Path:
    """Sockets and records of running mounts: `$XDG_RUNTIME_DIR/oscirc`, else a private directory in the temporary one.

    Made with mode 0700; raises `LocalError` when somebody else owns it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    directory = Path(base) / _NAME if base.startswith("/") else Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise LocalError(f"cannot make {directory}: {error.strerror}") from None
    if status.st_uid != os.getuid() or directory.is_symlink():
        raise LocalError(f"{directory} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a directory of your own")
    return directory
