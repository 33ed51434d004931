"""The next root and the next targets role, signed where their keys are. Files of keys in, signed metadata out.

Needs neither a database nor a server: an administrator's own machine fetches the roles in force, edits and signs
them here, and sends the result to `PUT roles/root` or `PUT roles/targets`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.trust import ROOT_LIFETIME_S, TARGETS_LIFETIME_S
from oscirc_server.delegations import check_targets
from oscirc_server.key_files import signers_for
from oscirc_server.metadata import SignedMetadata, expiry, parse, sign, verify, verify_root_successor
from oscirc_server.tuf_api import CryptoSigner, Metadata, Root, Targets

EditRoot = Callable[[Root], None]
EditTargets = Callable[[Targets], Targets]


@dataclass(frozen=True, slots=True)
class OfflineKeys:
    """A directory with root and targets keys, and the passphrase that opens them."""

    directory: Path
    passphrase: str | None


def next_root(
    current: Metadata[Root],
    offline: OfflineKeys,
    now_s: float,
    edit: EditRoot = lambda _: None,
    extra_signers: Sequence[CryptoSigner] = (),
) -> SignedMetadata:
    """The successor of `current`, valid for five years from now; verified as a client will verify it."""
    signers = signers_for(offline.directory, "root", current.signed.roles["root"], offline.passphrase)
    root = copy.deepcopy(current.signed)
    root.version += 1
    root.expires = expiry(now_s, ROOT_LIFETIME_S)
    edit(root)
    signature = sign("root", root, [*signers, *extra_signers])
    verify_root_successor(current, parse(signature.raw, Root, "the new root"))
    return signature


def next_targets(
    root: Root,
    current: Targets,
    offline: OfflineKeys,
    now_s: float,
    edit: EditTargets = lambda targets: targets,
) -> SignedMetadata:
    """The successor of `current` under `root`, valid for a year from now; checked as the server will check it."""
    signers = signers_for(offline.directory, "targets", root.roles["targets"], offline.passphrase)
    targets = edit(copy.deepcopy(current))
    targets.version = current.version + 1
    targets.expires = expiry(now_s, TARGETS_LIFETIME_S)
    check_targets(targets, now_s)
    signature = sign("targets", targets, signers)
    verify(root, "targets", parse(signature.raw, Targets, "the new targets role"), "the new targets role")
    return signature
