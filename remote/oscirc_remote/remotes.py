"""Remotes: the repositories that this user trusts, each under a local name, each pinned to a root of trust.

A remote is added by one line, `https://host/repo#sha256=<64 hex>`: the digest is that of the repository's newest root
metadata, which the repository serves as `roots/<sha256>.json`. So the line certifies itself, whoever hands it on; TLS
is not needed for it to be safe, and http is allowed. What a remote's directory holds is in ADR 5; `root.json` is the
pinned root, compared with its digest whenever it is read, and the start of TUF's chain at every refresh.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from oscirc_blockstore import canonical, repository_facts
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    LocalError,
    NotFoundError,
    NotServedError,
    SignatureRefusedError,
    UsageError,
)
from oscirc_blockstore.fields import Fields
from oscirc_blockstore.names import check_local_name
from oscirc_remote import paths
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.local_files import children, make_directory, read_bytes, read_document, write_atomically
from oscirc_remote.sources import OpenDocuments

FORMAT = "oscirc-remote-1"
MAX_ROOT_BYTES = 512_000
MAX_TARGETS_BYTES = 5_000_000  # what python-tuf accepts
MAX_OWN_MIRRORS = 100
MAX_TOKEN_BYTES = 4096
ADD_TIMEOUT_S = 30.0
LINE_FORM = "https://host/repository#sha256=<64 hexadecimal digits>"
_PIN = "sha256="


@dataclass(frozen=True, slots=True)
class Remote:
    """One trusted repository: local name, base URL, pinned root, mirrors of the user's own, and its directory."""

    name: str
    url: str
    root_digest: Digest
    own_mirrors: tuple[str, ...]
    directory: Path

    @property
    def line(self) -> str:
        """The self-certifying line that was pinned."""
        return f"{self.url}#{_PIN}{self.root_digest.hex()}"

    def root(self) -> bytes:
        """The pinned root metadata; raises `LocalError` when the file is not what was pinned."""
        raw = read_bytes(self.directory / "root.json", MAX_ROOT_BYTES)
        if raw is None or digest_of(raw) != self.root_digest:
            raise LocalError(
                f"the root of trust of remote {self.name} is missing or damaged",
                hint=f"run: oscirc remote remove {self.name}, then add it again",
            )
        return raw

    def facts(self) -> repository_facts.RepositoryFacts | None:
        """What the repository said of itself when it was last refreshed (verified then), None before that."""
        raw = read_bytes(self.directory / repository_facts.TARGET)
        try:
            return None if raw is None else repository_facts.parse(raw)
        except DocumentRefusedError:
            return None  # a damaged file: the next refresh replaces it

    def sources(self) -> tuple[str, ...]:
        """Base URLs to read from: the repository, the mirrors it names, the user's own."""
        facts = self.facts()
        return tuple(dict.fromkeys((self.url, *(facts.mirrors if facts else ()), *self.own_mirrors)))

    def api_url(self) -> str:
        """Where the REST API is: as the repository states, else below its URL."""
        facts = self.facts()
        return facts.api_url if facts and facts.api_url else f"{self.url}/api/v1"

    def token(self) -> str | None:
        """The stored API token, if any."""
        raw = read_bytes(self.directory / "token", MAX_TOKEN_BYTES)
        return None if raw is None else raw.decode("ascii", "replace").strip()

    def store_token(self, token: str) -> None:
        """Keep an API token in a file of mode 0600."""
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or len(token) > MAX_TOKEN_BYTES:
            raise UsageError("that is not a token", hint="paste the token as it was printed")
        write_atomically(self.directory / "token", token.encode("ascii"))

    def known_publishers(self) -> frozenset[str] | None:
        """Publishers that the repository delegated to when it was last refreshed, verified then; None if unknown."""
        raw = read_bytes(self.directory / "tuf" / "targets.json", MAX_TARGETS_BYTES)
        try:
            return (
                None if raw is None else frozenset(r["name"] for r in json.loads(raw)["signed"]["delegations"]["roles"])
            )
        except (ValueError, KeyError, TypeError):
            return None  # a damaged file: the next refresh replaces it


def parse_line(line: str) -> tuple[str, Digest]:
    """URL and root digest of a remote's line; raises `UsageError` that says what is missing."""
    url, mark, pin = line.strip().partition("#")
    try:
        url = repository_facts.check_url(url, "the repository's address")
        if not mark or not pin.startswith(_PIN):
            raise UsageError(
                f"{line!r} does not say which root of trust to expect",
                hint=f"use the whole line that the repository's operator gives out: {LINE_FORM}",
            )
        return url, parse_hex(pin.removeprefix(_PIN))
    except DocumentRefusedError as error:
        raise UsageError(str(error), hint=f"write {LINE_FORM}") from None


def check_mirrors(mirrors: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses as they are kept; raises `UsageError` for what is none, and for more than may be kept."""
    try:
        checked = tuple(repository_facts.check_url(mirror, "the mirror") for mirror in mirrors)
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None
    if len(checked) > MAX_OWN_MIRRORS:
        raise UsageError(f"more than {MAX_OWN_MIRRORS} mirrors")
    return checked


class Remotes:
    """All remotes of this user, one directory each below `base`."""

    def __init__(self, base: Path | None = None) -> None:
        self.base = base or paths.data_directory() / "remotes"

    def list(self) -> tuple[Remote, ...]:
        """Every remote, by name; one that is removed meanwhile is none."""
        found: list[Remote] = []
        for name in self._names():
            with contextlib.suppress(NotFoundError):
                found.append(self.load(name))
        return tuple(found)

    def _names(self) -> tuple[str, ...]:
        found = [path / "remote.json" for path in children(self.base)]
        return tuple(path.parent.name for path in found if os.path.exists(path))  # noqa: PTH110  # no error where one may not look

    def load(self, name: str) -> Remote:
        """The remote of that name; raises `NotFoundError` that lists what there is."""
        directory = self.base / check_local_name(name, "remote")
        document = read_document(directory / "remote.json")
        if document is None:
            known = ", ".join(self._names()) or "none yet"
            raise NotFoundError(
                f"there is no remote {name!r}", hint=f"remotes: {known}; add one with: oscirc remote add NAME LINE"
            )
        try:
            fields = Fields(document, f"remote {name}")
            fields.constant("format", FORMAT)
            remote = Remote(
                name,
                repository_facts.check_url(fields.take("url"), "the repository's address"),
                fields.digest("root_sha256"),
                tuple(
                    repository_facts.check_url(item, "a mirror") for item in fields.sequence("mirrors", MAX_OWN_MIRRORS)
                ),
                directory,
            )
            fields.finish()
        except DocumentRefusedError as error:
            raise LocalError(str(error), hint=f"run: oscirc remote remove {name}, then add it again") from None
        return remote

    def add(
        self,
        name: str,
        line: str,
        *,
        open_documents: OpenDocuments = HttpDocumentSource,
        deadline: Deadline | None = None,
    ) -> Remote:
        """Trust a repository under a local name: fetch the pinned root, compare it, refresh once, keep it.

        The same line again changes nothing; a newer line of the same repository (its root is in the chain that was
        followed since) neither. Another root under a used name raises `UsageError`: trust is never replaced silently.
        """
        directory = self.base / check_local_name(name, "remote")
        url, digest = parse_line(line)
        if (directory / "remote.json").exists():
            return self._add_again(self.load(name), url, digest)
        deadline = deadline or Deadline.after(ADD_TIMEOUT_S)
        draft = Path(tempfile.mkdtemp(dir=make_directory(self.base), prefix=f".{name}."))
        try:
            write_atomically(draft / "root.json", _fetch_root(url, digest, open_documents, deadline))
            remote = Remote(name, url, digest, (), draft)
            _save(remote)
            _refresh(remote, open_documents, deadline)
            try:
                draft.rename(directory)
            except OSError:
                return self._add_again(self.load(name), url, digest)  # somebody else was quicker
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return replace(remote, directory=directory)

    def _add_again(self, present: Remote, url: str, digest: Digest) -> Remote:
        followed = {digest_of(path.read_bytes()) for path in (present.directory / "tuf").glob("root_history/*.json")}
        if present.url != url or digest not in {present.root_digest, *followed}:
            raise UsageError(
                f"remote {present.name} already stands for {present.line}",
                hint=f"choose another name, or run first: oscirc remote remove {present.name}",
            )
        return present

    def remove(self, name: str) -> None:
        """Forget a remote with its trust state, receipts and token; images that are mounted stay so."""
        remote = self.load(name)
        try:
            doomed = tempfile.mkdtemp(dir=self.base, prefix=f".{name}.")
            remote.directory.rename(Path(doomed) / name)
            shutil.rmtree(doomed)
        except OSError as error:
            raise LocalError(f"cannot remove remote {name}: {error.strerror}") from None

    def set_mirrors(self, name: str, mirrors: tuple[str, ...]) -> Remote:
        """Replace the user's own list of mirrors of a remote."""
        remote = replace(self.load(name), own_mirrors=check_mirrors(mirrors))
        _save(remote)
        return remote

    def find_publisher(self, publisher: str, *, refresh: Callable[[Remote], None] = lambda _: None) -> Remote:
        """The one remote that has this publisher.

        Raises `UsageError` naming them when several have it, `NotFoundError` when none does. `refresh` is called for
        each remote, to learn of new publishers, only when there are several remotes and none is known to have it.
        """
        remotes = self.list()
        if len(remotes) == 1:
            return remotes[0]
        if not remotes:
            raise NotFoundError("there are no remotes yet", hint="add one with: oscirc remote add NAME LINE")
        found = [remote for remote in remotes if publisher in (remote.known_publishers() or ())]
        if not found:
            for remote in remotes:
                refresh(remote)
            found = [remote for remote in remotes if publisher in (remote.known_publishers() or ())]
        if len(found) > 1:
            names = ", ".join(remote.name for remote in found)
            raise UsageError(
                f"publisher {publisher} exists in several remotes: {names}",
                hint=f"say which one is meant: {found[0].name}:{publisher}/…",
            )
        if not found:
            names = ", ".join(remote.name for remote in remotes)
            raise NotFoundError(f"no remote has a publisher {publisher!r}", hint=f"remotes: {names}")
        return found[0]


def _save(remote: Remote) -> None:
    document: dict[str, object] = {
        "format": FORMAT,
        "url": remote.url,
        "root_sha256": remote.root_digest.hex(),
        "mirrors": list(remote.own_mirrors),
    }
    write_atomically(remote.directory / "remote.json", canonical.serialise(document))


def _fetch_root(url: str, digest: Digest, open_documents: OpenDocuments, deadline: Deadline) -> bytes:
    documents = open_documents(url)
    try:
        root = documents.fetch_document(f"roots/{digest.hex()}.json", MAX_ROOT_BYTES, deadline)
    except NotServedError:
        raise NotFoundError(
            f"{url} does not serve the root of trust that the line names",
            hint="look for a typing error in the address or in the digest; the operator has the right line",
        ) from None
    finally:
        documents.close()
    if digest_of(root) != digest:
        raise SignatureRefusedError(
            f"{url} serves another root of trust than the line names",
            hint="do not use this server before its operator has confirmed the line",
        )
    return root


def _refresh(remote: Remote, open_documents: OpenDocuments, deadline: Deadline) -> None:
    from oscirc_remote.session import Session  # noqa: PLC0415  # imports this module, and tuf

    with Session(remote, open_documents=open_documents, deadline=deadline) as session:
        session.refresh()
        session.repository_facts()
