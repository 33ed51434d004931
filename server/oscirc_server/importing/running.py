"""`oscirc serve import`: brings another tree into this repository, or makes one of it where there is none.

1. The tree is read and verified (`reading`), and it is found out how its root of trust and this repository's relate.
2. Blocks of every version are copied (`copying`).
3. The same root, or none here yet: what the tree shows is put into the store and taken over, as at the start of a
   server whose store is ahead. Another root: publisher by publisher (`taking_over`).
4. Accelerators of the versions that are listed here now.

A repository that is made this way signs with the online keys that the tree's root names, which must be in its `keys`
directory; where they are lost, the root key signs a new root with new ones.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from oscirc_blockstore import repository_facts
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import LocalError, NotFoundError, OscircError, UsageError
from oscirc_blockstore.repository_facts import TARGET
from oscirc_server import adoption, repository
from oscirc_server.bringing import bring
from oscirc_server.database import set_fact
from oscirc_server.elsewhere import Elsewhere
from oscirc_server.importing import accelerators_too, reading, taking_over
from oscirc_server.importing.copying import BlockImporter, Copied
from oscirc_server.importing.reading import Offer, OfferedRole
from oscirc_server.initialising import API_PATH, LOCAL_ACTOR, PUBLIC_URL
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES, key_paths, load_signer, signers_for
from oscirc_server.metadata import stored
from oscirc_server.models import Document, ImageRow, SignedRole
from oscirc_server.offline_signing import OfflineKeys
from oscirc_server.online_keys import make_online_keys
from oscirc_server.reconciling import reconcile
from oscirc_server.renewal import replace_keys
from oscirc_server.repository import Change
from oscirc_server.services import accelerators, audit, lengths
from oscirc_server.tree_paths import target_path
from oscirc_server.tuf_api import CryptoSigner, RepositoryError, Root, SSlibKey

Relation = Literal["new", "same", "other"]
DEFAULT_JOBS = 4
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ImportReport:
    """What came. `taken_over` names publishers with their role's version, `not_taken_over` with the reason."""

    relation: Relation
    versions: int = 0
    taken_over: dict[str, int] = field(default_factory=dict)
    not_taken_over: dict[str, str] = field(default_factory=dict)
    blocks: Copied = field(default_factory=Copied)
    accelerators: int = 0
    incomplete: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """Told what is being done, and the bytes of block files that each step brought."""

    say: Callable[[str], object] = lambda _: None
    step: Callable[[int], object] = lambda _: None


SILENT = Progress()


def import_tree(
    installation: Installation,
    source: Elsewhere,
    *,
    pinned: Digest | None = None,
    offline: OfflineKeys | None = None,
    jobs: int = DEFAULT_JOBS,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> ImportReport:
    """Bring what can be brought; what that is stands in the report. `dry_run`: what would be, were all blocks there."""
    offer = reading.read(source, pinned)
    relation = _relation(installation, offer)
    replacing = _keys_to_replace(installation, offer, offline) if relation == "new" else None
    report = ImportReport(relation, versions=len(offer.versions), missing=offer.missing)
    if dry_run:
        _foresee(installation, offer, report)
        return report
    here = _copy_blocks(installation, source, offer, jobs, report, progress)
    progress.say("roles")
    if relation == "other":
        _take_over_each(installation, offer, here, report)
    else:
        _take_over_all(installation, source, offer, replacing, report)
    progress.say("accelerators")
    report.accelerators += accelerators_too.copy(installation, source, offer, report.taken_over)
    for version in offer.versions:
        if version.publisher in report.taken_over and version.digest in here:
            lengths.make(installation, version.digest)
    for role in offer.roles:
        if role.publisher in report.taken_over:
            accelerators.follow(installation, role.publisher, role.indexes)
    with installation.database.write(durable=True) as session:
        detail = {"relation": relation, "blocks": report.blocks.stored, "publishers": sorted(report.taken_over)}
        audit.record(session, installation.now_s(), LOCAL_ACTOR, "import", "repository", **detail)
    return report


def _foresee(installation: Installation, offer: Offer, report: ImportReport) -> None:
    whole = {version.digest for version in offer.versions}
    with installation.database.read() as session:
        for role in offer.roles:
            problem = ""
            if report.relation == "other":
                problem = taking_over.refusal(session, role, whole, installation.now_s())
            if problem:
                report.not_taken_over[role.publisher] = problem
            else:
                report.taken_over[role.publisher] = role.version


def _relation(installation: Installation, offer: Offer) -> Relation:
    with installation.database.read() as session:
        if repository.current(session, "root") is None:
            return "new"
        ours = repository.current_root(session)
        known = {digest_of(raw) for raw in session.scalars(select(SignedRole.raw).where(SignedRole.role == "root"))}
    if known & {digest_of(raw) for raw in offer.raw_roots}:
        return "same"
    _log.info("another root of trust", extra={"ours": ours.signed.version, "theirs": offer.root.signed.version})
    return "other"


def _keys_to_replace(installation: Installation, offer: Offer, offline: OfflineKeys | None) -> OfflineKeys | None:
    """Refuse before anything is copied what could not be signed in the end; the root key where online ones are lost."""
    root = offer.root.signed
    try:
        for role in ONLINE_ROLES:
            signers_for(installation.layout.keys, role, root.roles[role], None)
    except (NotFoundError, UsageError, LocalError):
        if offline is None:
            raise UsageError(
                f"{installation.layout.keys} lacks the snapshot and timestamp keys that the tree's root names",
                hint="copy snapshot.pem and timestamp.pem of the old server there; if they are lost, say with --keys "
                "where the root key is, which then names new ones",
            ) from None
        signers_for(offline.directory, "root", root.roles["root"], offline.passphrase)
        return offline
    return None


def _copy_blocks(
    installation: Installation, source: Elsewhere, offer: Offer, jobs: int, report: ImportReport, progress: Progress
) -> set[Digest]:
    """Copy; returns the manifests whose disks are whole."""
    here: set[Digest] = set()
    importer = BlockImporter(installation, source, jobs=jobs, progressed=progress.step)
    report.blocks = importer.copied
    with contextlib.closing(importer):
        for version in offer.versions:
            progress.say(version.reference)
            if version.digest in here or importer.bring(version.manifest):
                here.add(version.digest)
            else:
                report.incomplete.append(version.reference)
    return here


def _take_over_all(
    installation: Installation, source: Elsewhere, offer: Offer, replacing: OfflineKeys | None, report: ImportReport
) -> None:
    brought = bring(installation, source, offer.root)
    report.missing = brought.missing
    if not brought.complete:
        raise LocalError(
            "the tree lacks signed metadata that its snapshot names",
            hint="its blocks are here now: run this again with a mirror or another copy that has the rest",
        )
    if report.relation == "new":
        _make_repository(installation, offer, replacing)
        # before the start, which removes files that no row names: they may be those of this very tree
        report.accelerators = accelerators_too.copy(installation, source, offer, _publishers(offer))
    reconcile(installation)
    _list_images(installation, offer)
    with installation.database.read() as session:
        for role in offer.roles:
            version = repository.current_version(session, role.publisher)
            report.taken_over[role.publisher] = version
            if version < role.version:
                report.not_taken_over[role.publisher] = f"version {role.version} could not take force"


def _list_images(installation: Installation, offer: Offer) -> None:
    """What a role in force names and an earlier import could not find: an image is listed once it is whole."""
    with installation.database.read() as session:
        roles = [role for role in offer.roles if _lacks_images(session, role)]
    if not roles:
        return
    with repository.changing(installation) as change:
        for role in roles:
            try:
                with change.session.begin_nested():
                    adoption.adopt_named(installation.storage, change, role.publisher, role.metadata.signed)
            except (RepositoryError, OscircError) as error:
                _log.warning("images are not whole", extra={"publisher": role.publisher, "error": str(error)})


def _lacks_images(session: Session, role: OfferedRole) -> bool:
    current = repository.current(session, role.publisher)
    if role.problem or current is None or current.raw != role.raw:
        return False
    rows = [session.get(ImageRow, (role.publisher, image)) for image in role.indexes]
    paths = [path for _, path, _ in role.indexes.values()]
    return [None if row is None else row.index_path for row in rows] != paths


def _publishers(offer: Offer) -> set[str]:
    return {role.publisher for role in offer.roles}


def _make_repository(installation: Installation, offer: Offer, replacing: OfflineKeys | None) -> None:
    in_store = {role: meta.version for role, meta in offer.metas.items()} | {"snapshot": offer.snapshot_version}
    with repository.changing(installation) as change:
        for metadata, raw in zip(offer.roots, offer.raw_roots, strict=True):
            change.add_role(stored("root", metadata.signed, raw))
        highest = max(offer.timestamp_version, offer.snapshot_version)
        change.stay_above(snapshot=offer.snapshot_version, timestamp=highest)
        adoption.adopt(installation.storage, change, in_store)
        _remember_address(change)
        if replacing is not None:
            replace_keys(change, replacing, _new_online_keys(installation, offer.root.signed))
        audit.record(change.session, change.now_s, LOCAL_ACTOR, "initialise", "repository", imported=True)


def _new_online_keys(installation: Installation, root: Root) -> dict[str, CryptoSigner]:
    """Keys that the root does not name, made or left over from an attempt before this one."""
    directory = installation.layout.keys
    named = frozenset(keyid for role in ONLINE_ROLES for keyid in root.roles[role].keyids)
    made = make_online_keys(directory, named, new=True)
    signers: dict[str, CryptoSigner] = {}
    for role in ONLINE_ROLES:
        wanted = SSlibKey.from_crypto(made.of(role)).keyid
        loaded = (load_signer(path, None) for path in key_paths(directory, role))
        signers[role] = next(signer for signer in loaded if signer.public_key.keyid == wanted)
    return signers


def _remember_address(change: Change) -> None:
    """The public URL, as `repository.json` states it."""
    targets = repository.current_targets(change.session).signed
    document = change.session.get(Document, target_path(TARGET, parse_hex(targets.targets[TARGET].hashes["sha256"])))
    if document is None:
        return
    address = repository_facts.parse(document.raw).api_url.removesuffix(f"/{API_PATH}")
    if address:
        set_fact(change.session, PUBLIC_URL, address)


def _take_over_each(installation: Installation, offer: Offer, here: set[Digest], report: ImportReport) -> None:
    storage = installation.storage
    taken: list[OfferedRole] = []
    with installation.database.read() as session:
        for role in offer.roles:
            problem = taking_over.refusal(session, role, here, installation.now_s())
            if problem:
                report.not_taken_over[role.publisher] = problem
            else:
                taken.append(role)
    if not taken:
        return
    for role in taken:
        for _, path, raw in role.indexes.values():
            storage.put_if_absent(path, raw)
    names = {role.publisher for role in taken}
    for version in offer.versions:
        if version.publisher in names:
            storage.put_if_absent(f"manifests/{version.digest.hex()}.json", version.raw)
    storage.sync()
    with repository.changing(installation) as change:
        for role in taken:
            problem = taking_over.refusal(change.session, role, here, change.now_s)  # it may have signed meanwhile
            if problem:
                report.not_taken_over[role.publisher] = problem
                continue
            taking_over.take_over(storage, change, role)
            report.taken_over[role.publisher] = role.version
