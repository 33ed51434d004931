"""Signing requests and signature files on a disk or a stick, and what people are told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc_blockstore.errors import LocalError, TrustError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from oscirc_blockstore.signing_request import PartSignature, SigningRequest
    from oscirc_publisher.joint_signing import AwaitsSignaturesError


def read_file(path: Path, max_bytes: int, what: str) -> bytes:
    """The file's bytes; `LocalError` when it cannot be read or is longer than such a file can be."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise LocalError(f"cannot read {what} {path}: {error.strerror}") from None
    if len(raw) > max_bytes:
        raise UsageError(f"{path} is not {what}: it is too long")
    return raw


def write_new_file(path: Path, raw: bytes) -> None:
    """Write it, unless it stands there already with these very bytes; another file is never replaced."""
    try:
        if path.exists():
            if path.read_bytes() != raw:
                raise UsageError(f"{path} exists already and is another file", hint="name another with -o")
            return
        with path.open("xb") as file:
            file.write(raw)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


def leave_request(error: AwaitsSignaturesError) -> TrustError:
    """Write what others have to sign, and our own signature, to the working directory; the error that says so."""
    name = f"{error.publisher}-{error.request.digest.hex()[:8]}"
    request, own = Path(f"{name}.request"), Path(f"{name}.own.signature")
    write_new_file(request, error.request.serialise())
    write_new_file(own, error.signatures)
    return TrustError(
        f"{error}: it is in {request}, with our signature in {own}",
        hint=f"others sign it: oscirc ceremony sign {request} --key NAME; "
        f"then: oscirc ceremony publish {request} {name}.*.signature, and run this command again",
    )


def read_request(path: Path) -> SigningRequest:
    """The request in a file."""
    from oscirc_blockstore import signing_request

    return signing_request.parse_request(read_file(path, signing_request.MAX_REQUEST_BYTES, "the signing request"))


def read_all_signatures(request: SigningRequest, paths: Sequence[Path]) -> list[PartSignature]:
    """The signatures in all files, each verified against the request."""
    from oscirc_blockstore import signing_request

    found: list[PartSignature] = []
    for path in paths:
        raw = read_file(path, signing_request.MAX_SIGNATURE_BYTES, "the signature file")
        found += signing_request.read_signatures(request, raw, str(path))
    return found


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A public key in PEM, as `oscirc key export` writes it."""
    from oscirc_blockstore import keys

    return keys.load_public(read_file(path, keys.MAX_KEY_BYTES, "the public key"), str(path))


def document(request: SigningRequest, signatures: Sequence[PartSignature]) -> dict[str, object]:
    """All facts of a request, for programs."""
    from oscirc_server import ceremonies, ceremony_facts

    needed = [
        {
            "role": item.role,
            "whose": item.whose,
            "threshold": item.threshold,
            "keys": sorted(item.fingerprints.values()),
            "signed": list(item.signed_by(signatures)),
        }
        for item in ceremonies.requirements(request)
    ]
    return {
        "request": request.digest.hex(),
        "repository": request.repository,
        "root_in_force": ceremony_facts.trusted_root(request),
        "parts": [asdict(part) for part in ceremony_facts.describe(request)],
        "needed": needed,
        "complete": all(len(item.signed_by(signatures)) >= item.threshold for item in ceremonies.requirements(request)),
    }


def show(request: SigningRequest, signatures: Sequence[PartSignature]) -> None:
    """All facts of a request, for people: what would change, who has to sign, who has."""
    from oscirc_server import ceremonies, ceremony_facts

    click.echo(f"signing request {request.digest.hex()}")
    click.echo(f"repository (as the request calls it): {request.repository}")
    trusted = ceremony_facts.trusted_root(request)
    if trusted:
        click.echo(f"root in force: #sha256={trusted}")
        click.echo("  compare this with the line that readers add the repository by: it builds upon that very root")
    for part in ceremony_facts.describe(request):
        before = f"version {part.version_before}, until {part.expires_before}" if part.version_before else "none yet"
        click.echo(f"\n{part.role}: {before}  ->  version {part.version}, until {part.expires}")
        for change in part.changes or ("nothing else changes",):
            click.echo(f"  {change}")
    click.echo("")
    for item in ceremonies.requirements(request):
        signed = item.signed_by(signatures)
        click.echo(f"{item.role}, {item.whose}: {item.threshold} must sign, {len(signed)} did")
        for mark in sorted(item.fingerprints.values()):
            click.echo(f"  {'signed' if mark in signed else '      '}  {mark}")
