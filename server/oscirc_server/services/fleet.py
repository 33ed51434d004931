"""Fleet profiles: boots that people share, merged into what a version's boot usually touches.

Anybody may send a run, so nobody is believed: a run is advice like every profile, and what it can do is waste bounded
bytes. Bounded are its size, how many are kept (the oldest goes), and how often the merged profile is written. It is
shown once at least `MIN_RUNS` were sent, so that it is nobody's own.
"""

from __future__ import annotations

from sqlalchemy import delete, func, select

from oscirc_blockstore import profile
from oscirc_blockstore.accelerators import PROFILE
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.profile import Profile
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow, ProfileRun
from oscirc_server.services import accelerators

MAX_RUN_BYTES = 512 << 10
MAX_RUNS = 64
MIN_RUNS = 3
REWRITE_S = 60
PREFIX = "fleet-"


def add_run(installation: Installation, names: tuple[str, str, str], name: str, raw: bytes) -> int:
    """Take one run; returns how many are kept now. Rewrites the merged profile when that is due."""
    run = profile.parse(raw)
    now_s = installation.now_s()
    with installation.database.write() as session:
        digest, manifest = accelerators.manifest_of(session, *names)
        if run.manifest != digest or run.name != name or run.runs != 1:
            raise DocumentRefusedError("the run is of another disk, has another name, or is more than one run")
        if not run.positions or any(position >= manifest.geometry.block_count for position in run.positions):
            raise DocumentRefusedError("the run names nothing, or a position beyond the end of the disk")
        session.add(ProfileRun(manifest=digest, name=name, raw=raw, created_s=now_s))
        session.flush()
        of_this = (ProfileRun.manifest == digest, ProfileRun.name == name)
        kept = select(ProfileRun.id).where(*of_this).order_by(ProfileRun.id.desc()).limit(MAX_RUNS)
        session.execute(delete(ProfileRun).where(*of_this, ProfileRun.id.not_in(kept)))
        count = session.scalar(select(func.count()).select_from(ProfileRun).where(*of_this)) or 0
        written = session.get(AcceleratorRow, (digest, PROFILE, PREFIX + name))
        due = count >= MIN_RUNS and (written is None or written.created_s + REWRITE_S <= now_s)
        runs = [profile.parse(one) for one in session.scalars(select(ProfileRun.raw).where(*of_this))] if due else []
    if runs:
        merged = profile.merge(runs)
        listed = Profile(merged.manifest, PREFIX + name, merged.runs, merged.positions)
        accelerators.keep_profile(installation, names[0], names[1], listed, PREFIX + name)
    return count
