"""Where a ceremony's result goes: over the REST API to a remote, or straight into a server's data directory."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.repository_facts import TARGET

if TYPE_CHECKING:
    from oscirc_blockstore.signing_request import SigningRequest

_TOGETHER = frozenset({"root", "targets"})


def to_data(
    request: SigningRequest, signed: Mapping[str, bytes], data: Path, database: str | None, blocks: str | None
) -> dict[str, object]:
    """Let a root or targets role take force on the server's own machine; safe beside a running server."""
    from oscirc_server.administration import Administration
    from oscirc_server.services.roles import SignedTogether

    if not _TOGETHER.issuperset(signed):
        raise UsageError("a publisher's role goes to the server through a remote", hint="leave --data away")
    administration = Administration(data, database_url=database, blocks_url=blocks)
    offered = SignedTogether(signed.get("root"), signed.get("targets"), request.documents.get(TARGET))
    accepted = administration.accept_together(offered)
    return {
        "version": accepted.version,
        "snapshot_version": accepted.snapshot_version,
        "unsigned_publishers": list(accepted.unsigned_publishers),
        "remote_url": administration.remote_url(),
    }


def to_remote(
    request: SigningRequest, signed: Mapping[str, bytes], remote_name: str | None, token_file: Path | None
) -> dict[str, object]:
    """Send it to the server."""
    from oscirc import composition
    from oscirc_publisher import joint_signing

    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        if not _TOGETHER.issuperset(signed):
            ((publisher, role),) = signed.items()
            accepted = joint_signing.send(rest, request, publisher, role)
            return {"role_version": accepted.role_version, "snapshot_version": accepted.snapshot_version}
        document: dict[str, object] = {role: base64.b64encode(raw).decode() for role, raw in signed.items()}
        if TARGET in request.documents:
            document["repository"] = base64.b64encode(request.documents[TARGET]).decode()
        answer = rest.call_json("PUT", "roles", document)
    return {name: answer.get(name) for name in ("version", "snapshot_version", "unsigned_publishers")}
