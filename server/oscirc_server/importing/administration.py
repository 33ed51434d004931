"""What `oscirc serve import` calls: a source and a data directory as text and paths, a report back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, UsageError
from oscirc_remote.remotes import parse_line
from oscirc_server import repository
from oscirc_server.clock import Clock, system_clock
from oscirc_server.elsewhere import elsewhere
from oscirc_server.importing.running import DEFAULT_JOBS, SILENT, ImportReport, Progress, import_tree
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.offline_signing import OfflineKeys
from oscirc_server.services import authority, tokens
from oscirc_server.settings import Settings
from oscirc_server.status import remote_url


@dataclass(frozen=True, slots=True)
class Imported:
    """What came; a repository that was made has a line for its readers and an administrator's token, shown once."""

    report: ImportReport
    remote_url: str = ""
    admin_token: str = ""


def run_import(
    source: str,
    data_dir: Path,
    *,
    database_url: str | None = None,
    blocks_url: str | None = None,
    root: str | None = None,
    keys_dir: Path | None = None,
    passphrase: str | None = None,
    jobs: int = DEFAULT_JOBS,
    dry_run: bool = False,
    progress: Progress = SILENT,
    clock: Clock = system_clock,
) -> Imported:
    """Import `source` (a directory, a URL, or a URL with its root's digest) into the repository of `data_dir`."""
    place, pinned = _parsed(source, root)
    offline = None if keys_dir is None else OfflineKeys(keys_dir, passphrase)
    settings = Settings(data_dir=data_dir, database_url=database_url, blocks_url=blocks_url)
    with (
        contextlib.closing(elsewhere(place)) as opened,
        Installation.create(settings, clock) as installation,
    ):
        if pinned is None and "://" in place:
            with installation.database.read() as session:
                if repository.current(session, "root") is None:
                    raise UsageError(
                        "nobody vouches for what that address serves",
                        hint="give the line that readers have: URL#sha256=…",
                    )
        report = import_tree(
            installation, opened, pinned=pinned, offline=offline, jobs=jobs, dry_run=dry_run, progress=progress
        )
        if report.relation != "new" or dry_run:
            return Imported(report)
        _, token = tokens.create(installation, [authority.ADMIN], "administrator", None, actor=LOCAL_ACTOR)
        with installation.database.read() as session:
            return Imported(report, remote_url(session), token)


def _parsed(source: str, root: str | None) -> tuple[str, Digest | None]:
    """Where the tree is, and which root of it is vouched for."""
    try:
        pinned = None if root is None else parse_hex(root)
    except DocumentRefusedError as error:
        raise UsageError(f"--root: {error}") from None
    if "://" in source:
        if "#" in source:
            url, stated = parse_line(source)
            if pinned not in (None, stated):
                raise UsageError("the address and --root name different roots")
            return url, stated
        return source, pinned
    directory = Path(source)
    inner = directory / "tree"
    return str(inner if (inner / "metadata").is_dir() else directory), pinned
