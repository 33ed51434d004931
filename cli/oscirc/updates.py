"""What can be updated, and what updating it would mean: looked at as a whole before anything is fetched or changed.

- A *subject* is an instance, a pinned reference, or a reference that somebody named. What it follows is a channel; one
  that names a version or a digest follows nothing.
- A *plan* is what the repository says now of what a subject follows, what of that is here, and, of an instance, what
  is to become of its system (`oscirc_vmlaunch.policies`). Making one changes nothing, and leaves the receipts alone:
  these are written when the new version is here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from oscirc import update_costs
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import NameRefusedError, NotFoundError, OscircError, UsageError
from oscirc_remote import references
from oscirc_remote.references import Reference

if TYPE_CHECKING:
    from oscirc_blockstore.image_index import ImageIndex, ImageVersion
    from oscirc_remote.pins import Pin
    from oscirc_remote.remotes import Remote
    from oscirc_remote.resolving import Resolved
    from oscirc_remote.update_cost import UpdateCost
    from oscirc_vmlaunch.instances import Instance
    from oscirc_vmlaunch.policies import Action, Policy
    from oscirc_vmlaunch.records import InstanceRecord

ASK_S = 30.0
_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that may be updated: its name, what it follows, and the version that it has, as far as it has one."""

    name: str
    reference: Reference
    label: str = ""
    digest: Digest | None = None
    instance: Instance | None = None
    pin: Pin | None = None

    @property
    def kind(self) -> str:
        """Of which kind it is, in a word."""
        return "instance" if self.instance else "pin" if self.pin else "reference"

    @property
    def has(self) -> str:
        """The version that it has, in words."""
        return self.label or (f"sha256:{self.digest.hex()[:12]}…" if self.digest else "nothing")

    @property
    def follows(self) -> str:
        """What it follows, in words."""
        reference = self.reference
        if reference.channel:
            return f"#{reference.channel}"
        digest = f"sha256:{reference.digest.hex()[:12]}…" if reference.digest else ""
        return f"pinned to {reference.version or digest}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update of a subject would do; `action` is None where there is no instance to move."""

    subject: Subject
    target: Reference
    wanted: Resolved
    version: ImageVersion | None
    is_behind: bool
    cost: UpdateCost
    action: Action | None
    warnings: tuple[str, ...]

    @property
    def is_news(self) -> bool:
        """Whether the wanted version is another than the subject has."""
        return self.subject.digest != self.wanted.manifest_digest

    @property
    def label(self) -> str:
        """What the wanted version is called."""
        return self.wanted.version_label or f"sha256:{self.wanted.manifest_digest.hex()[:12]}…"


def following(record: InstanceRecord) -> Reference:
    """What an instance follows, its remote named."""
    reference = references.parse(record.reference)
    return reference if reference.remote else replace(reference, remote=record.remote)


def find(what: str) -> Subject:
    """The subject of that name: an instance, or a reference, pinned or not."""
    if "/" not in what:
        return _of_instance(load_instance(what))
    reference = references.parse(what)
    pinned = [pin for pin in _pins() if _same(pin.reference, reference)]
    if pinned:
        return _of_pin(pinned[-1])
    return Subject(what, reference)


def load_instance(name: str) -> Instance:
    """The instance of that name; a name that there is not may be a reference without its publisher."""
    from oscirc_vmlaunch.instances import Instances

    try:
        return Instances().load(name)
    except NotFoundError as error:
        raise NotFoundError(str(error), hint="oscirc ps lists instances; a reference is PUBLISHER/IMAGE") from None


def everything() -> list[Subject]:
    """Every instance, and every pin whose reference is not that of an older pin."""
    from oscirc_vmlaunch.instances import Instances

    found = []
    for instance in Instances().load_all():
        with contextlib.suppress(NameRefusedError):
            found.append(_of_instance(instance))
    newest = {pin.reference: pin for pin in _pins()}  # oldest first
    return found + [_of_pin(pin) for pin in newest.values()]


def _of_instance(instance: Instance) -> Subject:
    record = instance.record
    return Subject(record.name, following(record), record.version, parse_hex(record.manifest_digest), instance=instance)


def _of_pin(pin: Pin) -> Subject:
    return Subject(pin.reference, references.parse(pin.reference), pin.version, pin.digest, pin=pin)


def _pins() -> list[Pin]:
    from oscirc_remote.pins import Pins

    return Pins().list()


def _same(text: str, reference: Reference) -> bool:
    """Whether a pin was made by this reference; where only one of the two names a remote, it is that one's."""
    with contextlib.suppress(OscircError):
        pinned = references.parse(text)
        remotes = {pinned.remote, reference.remote} - {""}
        return len(remotes) <= 1 and replace(pinned, remote="") == replace(reference, remote="")
    return False


def target_of(subject: Subject, channel: str | None, to: str | None) -> Reference:
    """What the subject is to follow from now on: what it follows, unless the user says otherwise."""
    if channel is None and to is None:
        return subject.reference
    if channel is not None and to is not None:
        raise UsageError("--channel and --to contradict each other")
    if subject.instance is None:
        raise UsageError(
            f"{subject.name} is no instance: only these can be made to follow something else",
            hint="name the channel or version in the reference: PUBLISHER/IMAGE#CHANNEL, PUBLISHER/IMAGE@VERSION",
        )
    plain = replace(subject.reference, version="", channel=channel or "stable", digest=None)
    if to is None:
        return plain
    if to.startswith("sha256:"):
        return references.parse(f"{plain.remote}:{plain.name}@{to}")
    return replace(plain, channel="", version=to)


@dataclass(slots=True)
class Planner:
    """Makes plans; asks the repository once for each image, and looks once at each version."""

    policy: Policy
    allow_revoked: bool = False
    _indexes: dict[tuple[str, str], ImageIndex] = field(default_factory=dict)
    _costs: dict[Digest, UpdateCost] = field(default_factory=dict)

    def plan(self, subject: Subject, target: Reference) -> Plan:
        """What it would mean to bring the subject to what `target` means now."""
        from oscirc_remote import news
        from oscirc_remote.resolving import Resolver, judge_yank

        resolver = Resolver()
        remote = resolver.remote_of(target)
        index = self._index(remote, target)
        version = _version_in(index, target)
        digest = version.manifest if version else target.digest
        if digest is None:  # a reference names a version, a channel or a digest
            raise NotFoundError(f"{target} names nothing")
        label = version.label if version else ""
        warnings: tuple[str, ...] = ()
        if version is not None:
            warnings = judge_yank(f"{target.name}@{label}", version.yanked, allow_revoked=self.allow_revoked)
        exact = Reference(target.publisher, target.image, remote.name, digest=digest)
        wanted = replace(resolver.resolve(exact, allow_revoked=self.allow_revoked), version_label=label)
        if subject.digest is None:
            subject = _with_what_is_here(subject, remote)
        news_of_it = news.judge(index, subject.digest, target.channel) if subject.digest else None
        return Plan(
            subject,
            replace(target, remote=remote.name),
            wanted,
            version,
            news_of_it is not None and news_of_it.is_behind,
            self._cost(wanted),
            self._action(subject, digest),
            warnings,
        )

    def _index(self, remote: Remote, target: Reference) -> ImageIndex:
        from oscirc_remote import news
        from oscirc_remote.deadlines import Deadline

        key = remote.name, target.name
        if key not in self._indexes:
            self._indexes[key] = news.ask(remote, target.publisher, target.image, Deadline.after(ASK_S))
        return self._indexes[key]

    def _cost(self, wanted: Resolved) -> UpdateCost:
        if wanted.manifest_digest not in self._costs:
            self._costs[wanted.manifest_digest] = update_costs.look(wanted)
        return self._costs[wanted.manifest_digest]

    def _action(self, subject: Subject, wanted: Digest) -> Action | None:
        from oscirc_vmlaunch import launching, overlays, policies

        if subject.instance is None:
            return None
        record = subject.instance.record
        situation = policies.Situation(
            stands_on=record.manifest_digest,
            wanted=wanted.hex(),
            is_written=overlays.is_written(subject.instance.overlay),
            is_ephemeral=record.ephemeral,
            is_running=launching.find(subject.instance) is not None,
        )
        return policies.decide(situation, self.policy)


def _version_in(index: ImageIndex, target: Reference) -> ImageVersion | None:
    """What a reference means in an index; None for a digest that the index does not have."""
    if target.digest is not None:
        return next((version for version in index.versions if version.manifest == target.digest), None)
    return index.version(target.version) if target.version else index.channel(target.channel)


def _with_what_is_here(subject: Subject, remote: Remote) -> Subject:
    """A reference has what it meant here last, else what was verified last, of what there is any data here."""
    from oscirc_remote import paths, readiness
    from oscirc_remote.receipts import ReceiptBook

    book = ReceiptBook(remote.directory)
    meant = book.find(subject.reference)
    others = sorted(book.of(subject.reference.publisher, subject.reference.image), key=lambda each: each.verified)
    for receipt in [*([meant] if meant else []), *reversed(others)][:_LOOKED_AT]:
        manifest = book.manifest(receipt.manifest)
        if manifest is None:
            continue
        if readiness.look(paths.cache_directory(), receipt.manifest, manifest, "").blocks_here:
            return replace(subject, label=receipt.version, digest=receipt.manifest)
    return subject
