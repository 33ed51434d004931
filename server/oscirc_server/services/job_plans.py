"""What there is to make: asked for by somebody, or wanted by policy for what an image has become.

`jobs.note` queues a plan for images that changed, in the transaction that changed them. `plan` looks at one: for each
version that a channel points at it queues the packs from the versions before it, and the bundles of profiles that have
none. What a publisher made itself is there already and is never made again. Policy leaves `SPARE` places of a version's
list of accelerators free for whoever publishes.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from oscirc_blockstore import delta, pack_bases
from oscirc_blockstore.accelerators import BUNDLE, DELTA, FLEET_PREFIX, MAX_ACCELERATORS, PROFILE, Accelerator
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_channel
from oscirc_blockstore.profile import Profile
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow, ManifestRow
from oscirc_server.services import accelerators, audit, jobs
from oscirc_server.services.jobs import BUNDLE_JOB, BY_POLICY, DELTA_JOB, POLICY, JobFacts, Wanted

SPARE = 20
LEAST_NETWORKS = 10


def plan(installation: Installation, publisher: str, image: str) -> int:
    """Queue what an image lacks; how many jobs that made."""
    now_s = installation.now_s()
    with installation.database.write() as session:
        try:
            index = accelerators.index_of(session, publisher, image)
        except NotFoundError:
            return 0
        lacking = list(dict.fromkeys(_lacking(session, index, installation.settings.jobs.deltas)))
        for wanted in lacking:
            jobs.queue(session, wanted, now_s, requested_by=POLICY, priority=BY_POLICY)
    return len(lacking)


def _lacking(session: Session, index: ImageIndex, deltas: int) -> Iterator[Wanted]:
    manifests = {version.label: version.manifest for version in index.versions}
    for channel, label in index.channels.items():
        version = index.channel(channel)
        listed = accelerators.listing(session, version.manifest)
        if version.yanked is not None or len(listed.accelerators) > MAX_ACCELERATORS - SPARE:
            continue
        names = index.publisher, index.image, label
        for each in listed.accelerators:
            fleet = each.name.startswith(FLEET_PREFIX)
            if each.kind == PROFILE and not fleet and listed.find(BUNDLE, each.name) is None:
                yield Wanted(BUNDLE_JOB, *names, each.name)
        for base in pack_bases.bases(index, label, channel, deltas):
            old = manifests[base]
            if old == version.manifest or listed.find(DELTA, delta.name_for(old)) is not None:
                continue
            if _block_size(session, old) == _block_size(session, version.manifest):
                yield Wanted(DELTA_JOB, *names, base)


def note_fleet(installation: Installation, names: tuple[str, str, str], merged: Profile) -> None:
    """A fleet's profile was written: its bundle may have to be made anew, where enough networks are behind it."""
    if installation.settings.jobs.fleet_bundles and merged.runs >= LEAST_NETWORKS:
        with installation.database.write() as session:
            wanted = Wanted(BUNDLE_JOB, *names, merged.name)
            jobs.queue(session, wanted, installation.now_s(), requested_by=POLICY, priority=BY_POLICY)


def _block_size(session: Session, manifest: bytes) -> int:
    return parse_manifest(session.get_one(ManifestRow, manifest).raw).geometry.block_size


def ask_for_delta(
    installation: Installation, names: tuple[str, str, str], base: str, *, actor: str
) -> JobFacts | Accelerator:
    """A pack from the version `base` to that of `names`: the job that makes it, or the pack where it is listed."""
    with installation.database.write() as session:
        digest, manifest = accelerators.manifest_of(session, *names)
        old, old_manifest = accelerators.manifest_of(session, names[0], names[1], base)
        if old == digest:
            raise UsageError(f"{base} and {names[2]} are the same disk: there is nothing to pack")
        if old_manifest.geometry.block_size != manifest.geometry.block_size:
            raise UsageError(f"the blocks of {base} and {names[2]} have two sizes: no pack can be made")
        listed = accelerators.listing(session, digest).find(DELTA, delta.name_for(old))
        return listed or _asked(session, Wanted(DELTA_JOB, *names, base), installation.now_s(), actor)


def ask_for_bundle(
    installation: Installation, names: tuple[str, str, str], profile: str, *, actor: str
) -> JobFacts | Accelerator:
    """The bundle of a profile that is listed: the job that makes it, or the bundle where there is one."""
    check_channel(profile)
    with installation.database.write() as session:
        digest, _ = accelerators.manifest_of(session, *names)
        if session.get(AcceleratorRow, (digest, PROFILE, profile)) is None:
            raise NotFoundError(
                f"{names[0]}/{names[1]}@{names[2]} has no profile called {profile}",
                hint="record one: oscirc record REF",
            )
        listed = accelerators.listing(session, digest).find(BUNDLE, profile)
        if listed is not None and not profile.startswith(FLEET_PREFIX):
            return listed
        return _asked(session, Wanted(BUNDLE_JOB, *names, profile), installation.now_s(), actor)


def _asked(session: Session, wanted: Wanted, now_s: int, actor: str) -> JobFacts:
    job = jobs.queue(session, wanted, now_s, requested_by=actor)
    audit.record(session, now_s, actor, "job.queue", wanted.subject, job=job.id, kind=wanted.kind, of=wanted.argument)
    return job
