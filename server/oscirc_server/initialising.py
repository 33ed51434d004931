"""Makes a repository: keys, the first root, the targets role with `repository.json`, and an administrator's token.

The root key signs once and is then needed only for renewals; with a keys directory of their own, the root and
targets keys never touch the data directory. An initialisation that was interrupted is finished by running it again
with the same passphrase: keys that stand are used, a repository that stands is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oscirc_blockstore import keys, repository_facts
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts, check_url
from oscirc_blockstore.trust import ROOT_LIFETIME_S, TARGETS_LIFETIME_S
from oscirc_server import repository
from oscirc_server.clock import Clock, system_clock
from oscirc_server.database import set_fact
from oscirc_server.delegations import with_repository_facts
from oscirc_server.errors import AlreadyInitialisedError
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES, key_path, load_signer, signers_for, write_key
from oscirc_server.metadata import SignedMetadata, expiry, parse, sign
from oscirc_server.online_keys import OnlineKeys, make_online_keys
from oscirc_server.services import audit, authority, tokens
from oscirc_server.settings import DEFAULT_LISTEN, Settings
from oscirc_server.tree_paths import target_path
from oscirc_server.tuf_api import CryptoSigner, Root, Targets

API_PATH = "api/v1"
PUBLIC_URL = "public_url"
LOCAL_ACTOR = "local command"


@dataclass(frozen=True, slots=True)
class InitResult:
    """What to tell the operator, once: the remote's line, the administrator's token, and where the keys are."""

    remote_url: str
    root_digest: str
    admin_token: str
    keys_dir: Path


def self_certifying_url(base_url: str, root: Digest) -> str:
    """The line that readers add: the repository's URL with the digest of its root of trust."""
    return f"{base_url.rstrip('/')}#sha256={root.hex()}"


def _load_or_make(path: Path, passphrase: str | None) -> CryptoSigner:
    if not path.exists():
        write_key(path, keys.generate(), passphrase)
    return load_signer(path, passphrase)


def _first_root(signers: dict[str, CryptoSigner], now_s: int) -> Root:
    root = Root(version=1, expires=expiry(now_s, ROOT_LIFETIME_S))
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    return root


def prepare(data_dir: Path) -> OnlineKeys:
    """The online keys of a repository that is to be: made in `data_dir`, named by the ceremony's first root."""
    return make_online_keys(Settings(data_dir=data_dir).layout.keys, frozenset(), new=False)


def initialise_signed(
    data_dir: Path,
    signed: Mapping[str, SignedMetadata],
    document: bytes,
    *,
    database_url: str | None = None,
    blocks_url: str | None = None,
    clock: Clock = system_clock,
) -> InitResult:
    """Make the repository of a root and a targets role that a ceremony signed; their keys were never here.

    `document` is the `repository.json` that the targets role names; what it states as the API address says what the
    public URL is.
    """
    facts = repository_facts.parse(document)
    base_url = facts.api_url.removesuffix(f"/{API_PATH}") or f"http://{DEFAULT_LISTEN}"
    settings = Settings(data_dir=data_dir, database_url=database_url, blocks_url=blocks_url)
    with Installation.create(settings, clock) as installation:
        with installation.database.read() as session:
            if repository.current(session, "root") is not None:
                raise AlreadyInitialisedError(f"{data_dir} holds a repository already")
        root = parse(signed["root"].raw, Root, "the first root").signed
        for role in ONLINE_ROLES:
            signers_for(installation.layout.keys, role, root.roles[role], None)
        with repository.changing(installation) as change:
            change.add_role(signed["root"])
            change.add_document(target_path(TARGET, digest_of(document)), document)
            change.add_role(signed["targets"])
            if facts.api_url:
                set_fact(change.session, PUBLIC_URL, base_url)
            audit.record(change.session, change.now_s, LOCAL_ACTOR, "initialise", facts.name, ceremony=True)
        _, token = tokens.create(installation, [authority.ADMIN], "administrator", None, actor=LOCAL_ACTOR)
        digest = digest_of(signed["root"].raw)
        return InitResult(self_certifying_url(base_url, digest), digest.hex(), token, installation.layout.keys)


def initialise(
    data_dir: Path,
    keys_dir: Path | None,
    passphrase: str,
    public_url: str | None,
    name: str | None,
    *,
    database_url: str | None = None,
    blocks_url: str | None = None,
    clock: Clock = system_clock,
) -> InitResult:
    """Make the repository of `data_dir`; `keys_dir` None keeps the root and targets keys in the data directory.

    Raises `AlreadyInitialisedError` when there is one, and `UsageError` for an empty passphrase or a bad URL.
    """
    if not passphrase:
        raise UsageError("the root and targets keys need a passphrase", hint="set OSCIRC_KEY_PASSPHRASE")
    base_url = check_url(public_url, "the public URL") if public_url else f"http://{DEFAULT_LISTEN}"
    facts = RepositoryFacts(
        name or urlsplit(base_url).hostname or "oscirc", f"{base_url}/{API_PATH}" if public_url else ""
    )
    settings = Settings(data_dir=data_dir, database_url=database_url, blocks_url=blocks_url)
    with Installation.create(settings, clock) as installation:
        with installation.database.read() as session:
            if repository.current(session, "root") is not None:
                raise AlreadyInitialisedError(f"{data_dir} holds a repository already")
        layout = installation.layout
        offline = keys_dir or layout.keys
        signers = {role: _load_or_make(key_path(offline, role), passphrase) for role in OFFLINE_ROLES}
        signers |= {role: _load_or_make(key_path(layout.keys, role), None) for role in ONLINE_ROLES}
        with repository.changing(installation) as change:
            root = sign("root", _first_root(signers, change.now_s), [signers["root"]])
            targets, document = with_repository_facts(
                Targets(version=1, expires=expiry(change.now_s, TARGETS_LIFETIME_S)), facts
            )
            change.add_role(root)
            change.add_document(target_path(TARGET, digest_of(document)), document)
            change.add_role(sign("targets", targets, [signers["targets"]]))
            if public_url:
                set_fact(change.session, PUBLIC_URL, base_url)
            audit.record(change.session, change.now_s, LOCAL_ACTOR, "initialise", facts.name)
        _, token = tokens.create(installation, [authority.ADMIN], "administrator", None, actor=LOCAL_ACTOR)
        digest = digest_of(root.raw)
        return InitResult(self_certifying_url(base_url, digest), digest.hex(), token, offline)
