"""Fleet profiles: boots that people share, merged into what a version's boot usually touches.

Anybody may send a run, so nobody is believed (`docs/adr/0012-fleet-profiles.md`):

- **One network, one run.** A sender is an IPv4 address or an IPv6 /56, kept as a hash under this repository's own
  secret; what it sends replaces what it sent before. An address as such is kept nowhere here.
- **A majority decides.** There is a profile from `MIN_RUNS` networks on, of what more than half of them touched and no
  longer than the median run (`oscirc_blockstore.consensus`).
- **All is bounded**: turns of a network and of all together, bytes of a run, runs of a name, runs in all, their age,
  names (those that the publisher has a profile of, and the default one), and how often a profile is made.
- It is listed under `fleet-NAME`. A bundle of it is made by a job, under more conditions (`job_making`), and taken by
  clients under bounds of their own (`Listing.bundle_for`); or by the publisher, who looks at it first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import threading

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore import consensus, profile
from oscirc_blockstore.accelerators import FLEET_PREFIX, PROFILE
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_blockstore.names import check_channel
from oscirc_blockstore.profile import Profile
from oscirc_server.admission import Admission, Rate
from oscirc_server.database import get_fact, insert_new
from oscirc_server.errors import TooManyRequestsError
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow, Fact, ProfileRun
from oscirc_server.services import accelerators, job_plans

MAX_RUN_BYTES = 128 << 10
MAX_RUNS = 64
MAX_RUNS_IN_ALL = 4096
MIN_RUNS = 5
KEEP_S = 90 * 86_400
REWRITE_S = 3600
EACH_NETWORK = Rate(burst=10, per_hour=20)
ALL_NETWORKS = Rate(burst=60, per_hour=1800)

_SECRET = "fleet_secret"  # noqa: S105  # the fact's name
_SENDER_BYTES = 16
_IPV6_PREFIX = 56

_log = logging.getLogger(__name__)
_merging = threading.Lock()


def network_of(installation: Installation, address: str) -> bytes:
    """Who counts as one sender: the network of an address, as a hash. Whatever is no address is one sender."""
    return hmac.digest(_secret(installation), _network(address).encode(), hashlib.sha256)[:_SENDER_BYTES]


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found), _IPV6_PREFIX), strict=False))
    return str(found)


def _secret(installation: Installation) -> bytes:
    with installation.database.read() as session:
        known = get_fact(session, _SECRET)
    if known is None:
        with installation.database.write(durable=True) as session:
            insert_new(session, Fact, [{"name": _SECRET, "value": secrets.token_hex(32)}])
            known = get_fact(session, _SECRET)
    return bytes.fromhex(known or "")


def admit(installation: Installation, sharing: Admission, network: bytes) -> None:
    """Take a turn of this network, or raise; `NotFoundError` where nobody may share."""
    if not installation.settings.shared_boots:
        raise NotFoundError("this repository takes no shared boots")
    wait_s = sharing.wait_s(network, installation.clock())
    if wait_s:
        raise TooManyRequestsError("too many boots were sent", retry_after_s=wait_s)


def add_run(installation: Installation, names: tuple[str, str, str], name: str, raw: bytes, network: bytes) -> int:
    """Take one run; returns of how many networks there is one now. Makes the fleet's profile when that is due."""
    run = profile.parse(raw)
    now_s = installation.now_s()
    with installation.database.write() as session:
        digest, manifest = accelerators.manifest_of(session, *names)
        if run.manifest != digest or run.name != name or run.runs != 1:
            raise DocumentRefusedError("the run is of another disk, has another name, or is more than one run")
        if not run.positions or any(position >= manifest.geometry.block_count for position in run.positions):
            raise DocumentRefusedError("the run names nothing, or a position beyond the end of the disk")
        _check_name(session, digest, name)
        of_this = _of(digest, name)
        session.execute(delete(ProfileRun).where(*of_this, ProfileRun.sender == network))
        session.execute(delete(ProfileRun).where(ProfileRun.created_s < now_s - KEEP_S))
        session.add(ProfileRun(manifest=digest, name=name, sender=network, raw=raw, created_s=now_s))
        session.flush()
        kept = select(ProfileRun.id).where(*of_this).order_by(ProfileRun.id.desc()).limit(MAX_RUNS)
        session.execute(delete(ProfileRun).where(*of_this, ProfileRun.id.not_in(kept)))
        kept = select(ProfileRun.id).order_by(ProfileRun.id.desc()).limit(MAX_RUNS_IN_ALL)
        session.execute(delete(ProfileRun).where(ProfileRun.id.not_in(kept)))
        count = session.scalar(select(func.count()).select_from(ProfileRun).where(*of_this)) or 0
        made = session.get(AcceleratorRow, (digest, PROFILE, FLEET_PREFIX + name))
        due = count >= MIN_RUNS and (made is None or made.created_s + REWRITE_S <= now_s)
    if due and _merging.acquire(blocking=False):  # whoever comes while one is made leaves it to the next
        try:
            _make(installation, names, digest, name)
        finally:
            _merging.release()
    return count


def _of(digest: Digest, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return ProfileRun.manifest == digest, ProfileRun.name == name


def _check_name(session: Session, digest: Digest, name: str) -> None:
    listed = name == profile.DEFAULT_NAME or session.get(AcceleratorRow, (digest, PROFILE, name)) is not None
    if not listed or name.startswith(FLEET_PREFIX):
        raise NotFoundError(f"this version has no recorded profile called {name[:63]!r}")
    check_channel(FLEET_PREFIX + name)


def _make(installation: Installation, names: tuple[str, str, str], digest: Digest, name: str) -> None:
    with installation.database.read() as session:
        stored = session.scalars(select(ProfileRun.raw).where(*_of(digest, name)).order_by(ProfileRun.id))
        runs = [profile.parse(raw) for raw in stored]
    if len(runs) < MIN_RUNS:
        return
    merged = consensus.agreed(runs, consensus.quorum(len(runs)))
    if not merged.positions:
        return
    listed = Profile(digest, FLEET_PREFIX + name, merged.runs, merged.positions)
    if not accelerators.keep_profile(installation, names[0], names[1], listed):
        _log.warning("no room for a fleet profile", extra={"manifest": digest.hex(), "profile": listed.name})
        return
    job_plans.note_fleet(installation, names, listed)
