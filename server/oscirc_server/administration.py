"""What the `oscirc serve …`, `oscirc publisher …` and `oscirc token …` commands call on the server's machine.

Plain functions over a data directory: paths and values in, values out, an `OscircError` when something is refused.
All of them may run beside a running server. `database_url` and `blocks_url` are those the server is run with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from oscirc_blockstore import keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotFoundError
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts
from oscirc_server import delegations, recovery, renewal, repository
from oscirc_server.bringing import Brought, bring
from oscirc_server.clock import Clock, system_clock
from oscirc_server.collection import collecting, scrubbing
from oscirc_server.collection.collecting import OnProgress
from oscirc_server.collection.report import Report
from oscirc_server.collection.scrubbing import ScrubReport
from oscirc_server.elsewhere import elsewhere
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES
from oscirc_server.offline_signing import OfflineKeys
from oscirc_server.online_keys import OnlineKeys, make_online_keys
from oscirc_server.reconciling import reconcile
from oscirc_server.recovery import Recovered, RoleHistory
from oscirc_server.renewal import Renewed
from oscirc_server.services import catalog, recounting, tokens
from oscirc_server.services.catalog import PublisherFacts
from oscirc_server.services.recounting import Recount
from oscirc_server.services.roles import RoleAccepted, SignedTogether, accept_together
from oscirc_server.services.tokens import TokenFacts
from oscirc_server.settings import CollectionSettings, Settings
from oscirc_server.status import Status
from oscirc_server.status import remote_url as _remote_url
from oscirc_server.status import status as _status
from oscirc_server.tree_paths import target_path


class Administration:
    """An initialised data directory, as a command sees it; raises `NotInitialisedError` when there is none."""

    def __init__(
        self,
        data_dir: Path,
        *,
        database_url: str | None = None,
        blocks_url: str | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = Settings(data_dir=data_dir, database_url=database_url, blocks_url=blocks_url)
        self._clock = clock

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Installation]:
        with Installation.open(self._settings, self._clock) as installation:
            yield installation

    @contextlib.contextmanager
    def _signing(self) -> Iterator[Installation]:
        """As a server does at its start: no version number that the store has seen is used again."""
        with self._reading() as installation:
            reconcile(installation)
            yield installation

    def _offline(self, keys_dir: Path | None, passphrase: str | None) -> OfflineKeys:
        return OfflineKeys(keys_dir or self._settings.layout.keys, passphrase)

    def status(self) -> Status:
        """Expiries, alarms, counts."""
        with self._reading() as installation:
            return _status(installation)

    def remote_url(self, base_url: str | None = None) -> str:
        """The self-certifying URL of the newest root."""
        with self._reading() as installation, installation.database.read() as session:
            return _remote_url(session, base_url)

    def resign_online(self, *, above: int = 0) -> Renewed:
        """Renew snapshot and timestamp now, with version numbers above `above`; returns the snapshot."""
        with self._signing() as installation:
            return renewal.resign_online(installation, above)

    def resign(self, role: str, keys_dir: Path | None, passphrase: str | None) -> Renewed:
        """Renew `root` or `targets` with the keys in `keys_dir` (None: the data directory's)."""
        with self._signing() as installation:
            return renewal.resign(installation, role, self._offline(keys_dir, passphrase))

    def check_rotation(self, role: str, keys_dir: Path | None, passphrase: str | None) -> Renewed:
        """What `rotate` would make, if the keys at hand can sign it; changes nothing."""
        with self._reading() as installation:
            return renewal.check_rotation(installation, role, self._offline(keys_dir, passphrase))

    def rotate(self, role: str, keys_dir: Path | None, passphrase: str | None) -> Renewed:
        """A new key for one of the four roles, or for both `online` ones; returns the root that names it."""
        with self._signing() as installation:
            return renewal.rotate(installation, role, self._offline(keys_dir, passphrase))

    def roles_in_force(self) -> tuple[bytes, bytes]:
        """The root and the targets role in force, as they were signed."""
        with self._reading() as installation, installation.database.read() as session:
            return repository.in_force(session, "root").raw, repository.in_force(session, "targets").raw

    def accept_together(self, offered: SignedTogether) -> RoleAccepted:
        """Let what several people signed take force."""
        with self._signing() as installation:
            return accept_together(installation, offered, actor=LOCAL_ACTOR)

    def online_keys(self, *, new: bool) -> OnlineKeys:
        """The public halves of this server's online keys; with `new`, of those that the next root is to name."""
        with self._reading() as installation, installation.database.read() as session:
            root = repository.current_root(session).signed
            named = frozenset(keyid for role in ONLINE_ROLES for keyid in root.roles[role].keyids)
            return make_online_keys(self._settings.layout.keys, named, new=new)

    def histories(self) -> tuple[RoleHistory, ...]:
        """Every role's versions, and where they jumped."""
        with self._reading() as installation:
            return recovery.histories(installation)

    def adopt(self, source: str, *, dry_run: bool = False) -> Brought:
        """Bring what a mirror, a copy or a reader has and this store lacks; taken over once it is complete."""
        with self._reading() as installation, contextlib.closing(elsewhere(source)) as found:
            brought = bring(installation, found, dry_run=dry_run)
            if brought.complete and not dry_run:
                reconcile(installation)
            return brought

    def recover(
        self,
        back_to: Mapping[str, int],
        keys_dir: Path | None,
        passphrase: str | None,
        *,
        signed_root: bytes | None = None,
    ) -> Recovered:
        """New online keys, and back before a thief's versions; what the store has is looked at only afterwards."""
        with self._reading() as installation:
            offline = None if signed_root is not None else self._offline(keys_dir, passphrase)
            done = recovery.recover(installation, back_to, offline=offline, signed_root=signed_root)
            reconcile(installation)
            return done

    def add_publisher(
        self,
        publisher: str,
        public_pems: Sequence[bytes],
        keys_dir: Path | None,
        passphrase: str | None,
        *,
        threshold: int = 1,
    ) -> RoleAccepted:
        """Delegate `<publisher>/*` to these public keys, in place of any that it was delegated to."""
        public = [keys.load_public(pem, f"the key of {publisher}") for pem in public_pems]
        with self._signing() as installation:
            return renewal.edit_targets(
                installation,
                self._offline(keys_dir, passphrase),
                lambda targets: delegations.with_publisher(targets, publisher, public, threshold=threshold),
            )

    def remove_publisher(self, publisher: str, keys_dir: Path | None, passphrase: str | None) -> RoleAccepted:
        """Delegate nothing to this publisher any more; its versions can no longer be resolved."""
        with self._signing() as installation:
            return renewal.edit_targets(
                installation,
                self._offline(keys_dir, passphrase),
                lambda targets: delegations.without_publisher(targets, publisher),
            )

    def set_repository_facts(
        self, facts: RepositoryFacts, keys_dir: Path | None, passphrase: str | None
    ) -> RoleAccepted:
        """Sign a new `repository.json`: name, API address, mirrors."""
        raw = facts.serialise()
        with self._signing() as installation:
            return renewal.edit_targets(
                installation,
                self._offline(keys_dir, passphrase),
                lambda targets: delegations.with_repository_facts(targets, facts)[0],
                {target_path(TARGET, digest_of(raw)): raw},
            )

    def collect(
        self,
        collection: CollectionSettings | None = None,
        *,
        dry_run: bool = False,
        on_progress: OnProgress = collecting.silent,
    ) -> Report:
        """Delete what nothing needs, or say what would be."""
        settings = replace(self._settings, collection=collection or self._settings.collection)
        with Installation.open(settings, self._clock) as installation:
            return collecting.collect(installation, dry_run=dry_run, on_progress=on_progress)

    def scrub(
        self,
        mirrors: Sequence[str] = (),
        *,
        bytes_per_s: float | None = None,
        from_start: bool = False,
        on_progress: scrubbing.OnProgress = scrubbing.silent,
    ) -> ScrubReport:
        """Read what is stored again, and repair it from mirrors."""
        with self._reading() as installation:
            return scrubbing.scrub(
                installation, mirrors, bytes_per_s=bytes_per_s, from_start=from_start, on_progress=on_progress
            )

    def publishers(self) -> list[PublisherFacts]:
        """Every publisher that is delegated to."""
        with self._reading() as installation, installation.database.read() as session:
            return catalog.publishers(session)

    def check_quotas(self, publisher: str | None, *, repair: bool) -> list[Recount]:
        """Count what publishers keep (one, or all) from the signed tables; with `repair` that is recorded."""
        with self._reading() as installation:
            with installation.database.read() as session:
                known = recounting.publishers(session)
            if publisher is not None and publisher not in known:
                raise NotFoundError(f"{publisher[:80]} keeps nothing here")
            return [
                recounting.recount(installation, name, repair=repair) for name in known if publisher in (None, name)
            ]

    def create_token(self, scopes: Sequence[str], name: str, lifetime_s: int | None = None) -> tuple[TokenFacts, str]:
        """A bearer token: its facts, and its text, which nothing can give again."""
        with self._reading() as installation:
            return tokens.create(installation, scopes, name, lifetime_s, actor=LOCAL_ACTOR)

    def tokens(self) -> list[TokenFacts]:
        """Every token, without its text."""
        with self._reading() as installation, installation.database.read() as session:
            return tokens.tokens(session)

    def revoke_token(self, token_id: str) -> None:
        """End a token."""
        with self._reading() as installation:
            tokens.revoke(installation, token_id, actor=LOCAL_ACTOR)
