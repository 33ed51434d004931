"""What a job's process made becomes an accelerator: hashed and judged as an upload is, kept, and listed.

It is listed in one transaction with the look whether the job is still its worker's, so that a job that was cancelled,
or taken by another, lists nothing. The same file listed again changes nothing.

A fleet's bundle is made again and again: of the files that jobs listed before, the last one stays for clients that are
reading it, and those before that go.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy.orm import Session

from oscirc_blockstore.accelerators import MAX_ACCELERATORS, Accelerator
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import LocalError
from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow
from oscirc_server.services import accelerators, audit, jobs
from oscirc_server.services.jobs import JobFacts, Wanted

_PIECE_BYTES = 1 << 20


def keep(
    installation: Installation, job: JobFacts, worker: str, kind: str, name: str, path: Path
) -> Accelerator | None:
    """List the file at `path`; None, and nothing listed, where the job is no longer this worker's."""
    wanted = job.wanted
    with installation.database.read() as session:
        digest, manifest = accelerators.manifest_of(session, *wanted.names)
    try:
        with path.open("rb") as file:
            hashed = hashlib.sha256()
            while piece := file.read(_PIECE_BYTES):
                hashed.update(piece)
            accelerator = accelerators.judged(digest, manifest, kind, name, Digest(hashed.digest()), file)
            installation.storage.replace_from(accelerator.path, file)
    except OSError as error:
        raise LocalError(f"cannot read what was made: {error.strerror}") from None
    now_s = installation.now_s()
    with installation.database.write() as session:
        if not jobs.is_held(session, job.id, worker):
            return None
        accelerators.manifest_of(session, *wanted.names)  # it may have been deleted meanwhile: then nothing is listed
        if not accelerators.has_room(session, digest, kind, name):
            raise ConflictError(f"a version has at most {MAX_ACCELERATORS} accelerators", hint="remove one first")
        overtaken = _overtaken(session, wanted, digest, accelerator)
        accelerators.put_row(session, digest, accelerator, now_s)
        facts = {"kind": kind, "name": name, "for": job.requested_by}
        audit.record(session, now_s, f"job:{job.id}", "accelerator.make", wanted.subject, **facts)
    accelerators.project(installation, wanted.publisher, [wanted.image], digest)
    for sha256 in overtaken:
        installation.storage.remove(f"accel/{sha256.hex()}")
    return accelerator


def _overtaken(session: Session, wanted: Wanted, manifest: Digest, new: Accelerator) -> set[Digest]:
    """What earlier jobs listed there and nothing lists now, but for what is listed until this one is."""
    row = session.get(AcceleratorRow, (manifest, new.kind, new.name))
    made = jobs.files_of(session, wanted) - {new.sha256} - ({Digest(row.sha256)} if row else set())
    return {sha256 for sha256 in made if not session.scalar(accelerators.still_named(sha256))}
