"""Keys as files: root and targets encrypted under a passphrase, snapshot and timestamp for unattended use.

`root.pem` and `targets.pem` stand where the operator says (`--keys DIR`, best a medium that is elsewhere most of the
time), else in the data directory until they are moved. The online keys always stand in the data directory with mode
0600. Each role may have several files, `<role>.pem` and `<role>.<anything>.pem`: a rotation writes the new key
beside the old one before the root names it, so that a crash between the two leaves a server that can sign.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oscirc_blockstore import keys
from oscirc_blockstore.errors import LocalError, NotFoundError, UsageError
from oscirc_server.tuf_api import CryptoSigner, Role, Root

OFFLINE_ROLES = ("root", "targets")
ONLINE_ROLES = ("snapshot", "timestamp")


def key_path(directory: Path, role: str, keyid: str = "") -> Path:
    """Where a role's key stands; with `keyid` the name that a rotation gives it."""
    return directory / (f"{role}.{keyid[:16]}.pem" if keyid else f"{role}.pem")


def key_paths(directory: Path, role: str) -> list[Path]:
    """Every file that may hold a key of this role, the plain name first."""
    others = sorted(path for path in directory.glob(f"{role}.*.pem") if path.is_file())
    plain = key_path(directory, role)
    return [plain, *others] if plain.is_file() else others


def write_key(path: Path, key: Ed25519PrivateKey, passphrase: str | None) -> None:
    """A new key file, mode 0600, never in place of another; on disk when this returns."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(keys.private_pem(key, passphrase))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise LocalError(f"{path} exists already", hint="keys are never overwritten: move it away first") from None
    except OSError as error:
        raise LocalError(f"cannot write the key {path}: {error.strerror}") from None


class KeyGoneError(LocalError):
    """A key file that was listed has another name by now: a rotation retired it."""


def load_signer(path: Path, passphrase: str | None) -> CryptoSigner:
    """The key in a file, ready to sign; `LocalError` or `UsageError`."""
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        raise KeyGoneError(f"there is no key {path}") from None
    except OSError as error:
        raise LocalError(f"cannot read the key {path}: {error.strerror}") from None
    return CryptoSigner(keys.load_private(pem, passphrase, str(path)))


def signers_for(directory: Path, role_name: str, role: Role, passphrase: str | None) -> list[CryptoSigner]:
    """The keys in `directory` that the root names for this role; as many as its threshold, or an error."""
    while True:
        paths = key_paths(directory, role_name)
        if not paths:
            raise NotFoundError(
                f"no {role_name} key in {directory}",
                hint="say with --keys where it is, or have those sign who hold it: oscirc ceremony",
            )
        with contextlib.suppress(KeyGoneError):  # then another one is there
            return choose_signers((load_signer(path, passphrase) for path in paths), role_name, role, str(directory))


def choose_signers(signers: Iterable[CryptoSigner], role_name: str, role: Role, where: str) -> list[CryptoSigner]:
    """Those signers whose keys `role` names; raise `UsageError` when they are fewer than its threshold."""
    chosen = {signer.public_key.keyid: signer for signer in signers if signer.public_key.keyid in role.keyids}
    if len(chosen) < role.threshold:
        hint = f"several people sign together: oscirc ceremony {role_name}" if role_name in OFFLINE_ROLES else ""
        raise UsageError(
            f"{where} holds {len(chosen)} of the {role.threshold} {role_name} keys that the root asks for", hint=hint
        )
    return list(chosen.values())


def retire_file(path: Path) -> None:
    """Keep a key file under a name that nobody signs with any more."""
    retired = path.with_name(f"{path.name}.retired")
    if not retired.exists():
        with contextlib.suppress(FileNotFoundError):  # another rotation was quicker
            path.rename(retired)


def retire_keys(directory: Path, before: Root, after: Root) -> None:
    """Retire the online keys that `after` names no more; those that no root names yet wait for the next one."""
    for role in ONLINE_ROLES:
        gone = set(before.roles[role].keyids) - set(after.roles[role].keyids)
        for path in key_paths(directory, role) if gone else ():
            with contextlib.suppress(KeyGoneError):
                if load_signer(path, None).public_key.keyid in gone:
                    retire_file(path)
