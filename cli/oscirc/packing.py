"""Delta packs as the command line makes them: which versions are meant, where their blocks come from, progress."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oscirc.output import human_bytes, progress, say, warn
from oscirc_blockstore.errors import DeadlineExceededError, OscircError, UnreachableError, UsageError

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc.output import Bar
    from oscirc_blockstore.delta_making import Load, WholeLength
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.disk_source import DiskSource
    from oscirc_blockstore.image_index import ImageIndex
    from oscirc_publisher.differencing import Packed
    from oscirc_publisher.rest import RestClient
    from oscirc_remote.resolving import Resolved

_PATIENCE_S = 60.0
_MEMORY_BYTES = 8 << 20  # who makes packs remembers old blocks better, since it knows which it will need
_MOST_POSITIONS = 1 << 20
"""Of a longer disk the list of what its blocks cost would take more memory than asking it saves work."""
NO_NUMPY_HINT = "install numpy, or oscirc with its extra: oscirc[delta]"


def has_numpy() -> bool:
    """Whether packs can be made here."""
    from importlib.util import find_spec

    return find_spec("numpy") is not None


def released_index(wanted: VersionReference) -> ImageIndex:
    """The index of the image that is meant, as the repository has it now."""
    from oscirc_remote.session import Session

    with Session(wanted.remote) as session:
        return session.image_index(wanted.publisher, wanted.image)


def resolved_version(wanted: VersionReference, label: str) -> Resolved:
    """A released version of the image that is meant; withdrawn ones too, since a pack leads away from them."""
    from oscirc_remote.resolving import resolve

    return resolve(f"{wanted.remote.name}:{wanted.publisher}/{wanted.image}@{label}", allow_revoked=True)


def bases(
    index: ImageIndex, wanted: VersionReference, channel: str | None, most: int | None, *, is_instance: bool
) -> list[str]:
    """From which versions packs to the one that is being released should start; `most` None: as many as is usual."""
    from oscirc_blockstore import pack_bases

    if most is None:
        most = 0 if is_instance else 1
    return pack_bases.bases(index, wanted.version, channel, most)


def left_to_server(
    client: RestClient, wanted: VersionReference, bases: Sequence[str], channel: str | None, most: int | None
) -> bool:
    """Whether the server makes these packs itself, so that none need be made here; says so.

    It does where its jobs run, for what a channel points at. Who names a number (`most`) wants them from here.
    """
    if most is not None or channel is None or not bases:
        return False
    made = client.call_json("GET", f"publishers/{wanted.publisher}").get("deltas_made")
    if not isinstance(made, int) or made < len(bases):  # an older server says nothing
        return False
    say(f"the delta pack from {bases[0]} is left to the server (to make it here: --deltas 1)")
    return True


def add_packs(
    client: RestClient,
    wanted: VersionReference,
    bases: Sequence[str],
    *,
    block_at: Callable[[int], bytes] | None = None,
    level: int | None = None,
    again: bool = False,
    quiet: bool = False,
) -> list[Packed]:
    """Make the packs from these versions to the one that is meant, and put them there.

    What is not at hand comes from the cache and the repository.
    """
    if not bases:
        return []
    if not has_numpy():
        raise UsageError("delta packs are made with numpy, which is not here", hint=NO_NUMPY_HINT)
    from oscirc_blockstore.delta_making import Version
    from oscirc_blockstore.delta_record import DEFAULT_LEVEL
    from oscirc_publisher.accelerating import VersionName
    from oscirc_publisher.differencing import add_pack
    from oscirc_remote.deadlines import Deadline
    from oscirc_remote.opening import open_source

    new = resolved_version(wanted, wanted.version)
    name = VersionName(wanted.publisher, wanted.image, wanted.version)
    added = []
    with contextlib.closing(open_source(new.remote.sources(), block_memory_bytes=_MEMORY_BYTES)) as source:

        def load(digest: Digest, raw_size: int) -> bytes:
            return source.fetch_here(digest, raw_size, Deadline.after(_PATIENCE_S))

        for label in bases:
            old = resolved_version(wanted, label)
            if old.manifest_digest == new.manifest_digest:
                say(f"no delta pack from {label}: it is the same disk")
                continue
            if old.manifest.geometry.block_size != new.manifest.geometry.block_size:
                warn(f"no delta pack from {label}: its blocks have another size")
                continue
            with progress(f"delta pack from {label}", None, quiet=quiet) as bar:
                added.append(
                    add_pack(
                        client,
                        name,
                        label,
                        Version(old.manifest_digest, old.manifest),
                        Version(new.manifest_digest, new.manifest),
                        load,
                        _whole_length(new, load),
                        block_at=block_at,
                        level=DEFAULT_LEVEL if level is None else level,
                        again=again,
                        stop=threading.Event(),  # the client's own, once set, ends what comes after this pack too
                        progress=_Shown(bar, new.manifest.geometry.block_size),
                    )
                )
    return added


def _whole_length(new: Resolved, load: Load) -> WholeLength:
    """What block files cost as the repository lists it, where it does."""
    from oscirc_blockstore.delta_making import stated_whole_length, usual_whole_length
    from oscirc_blockstore.table import NODE_SIZE
    from oscirc_remote.block_lengths import known_lengths
    from oscirc_remote.opening import listing_of

    geometry = new.manifest.geometry
    if geometry.disk_size // geometry.block_size > _MOST_POSITIONS:
        return usual_whole_length
    return stated_whole_length(known_lengths(new, listing_of(new), lambda digest: load(digest, NODE_SIZE)))


def add_to_published(
    wanted: VersionReference,
    client: RestClient,
    bases: Sequence[str],
    disk: DiskSource,
    block_size: int,
    *,
    quiet: bool,
) -> list[Packed]:
    """The same for a version that was published just now from a disk that is at hand.

    A pack that cannot be made, or that the server does not take, is warned of: the version is whole without it, and
    its channel is still to move. Only where nobody answers that is left to the next call.
    """
    if bases and not has_numpy():
        warn(f"no delta pack was made: {NO_NUMPY_HINT}")
        return []

    def block(position: int) -> bytes:
        offset = position * block_size
        return disk.read(offset, min(block_size, disk.size - offset)).ljust(block_size, b"\0")

    added: list[Packed] = []
    for base in bases:
        try:
            added += add_packs(client, wanted, [base], block_at=block, quiet=quiet)
        except (UnreachableError, DeadlineExceededError):
            raise
        except OscircError as error:
            warn(f"no delta pack from {base}: {error}")
    return added


@dataclass(frozen=True, slots=True)
class AskedPack:
    """A pack that the server makes in the job of that number; None: it is there already."""

    base: str
    job: int | None


def ask_server(client: RestClient, wanted: VersionReference, base: str) -> AskedPack:
    """Have the server make a pack, whenever it comes to it."""
    path = f"images/{wanted.publisher}/{wanted.image}/versions/{base}/deltas/{wanted.version}"
    job = client.call_json("POST", path).get("job")
    number = job.get("id") if isinstance(job, dict) else None
    return AskedPack(base, number if isinstance(number, int) else None)


def tell_asked(asked: Sequence[AskedPack]) -> None:
    """The same, for people."""
    for each in asked:
        if each.job is None:
            say(f"delta pack from {each.base}: was there already")
        else:
            say(f"delta pack from {each.base}: asked for; see how it goes: oscirc jobs show {each.job}")


@dataclass(frozen=True, slots=True)
class ListedPack:
    """A pack that the server lists; `base` is empty where no released version is the one it starts from."""

    base: str
    name: str
    pack_bytes: int
    index_bytes: int


def listed_packs(client: RestClient, wanted: VersionReference) -> list[ListedPack]:
    """The delta packs of a version."""
    from oscirc_blockstore.accelerators import DELTA
    from oscirc_blockstore.delta import name_for
    from oscirc_publisher.accelerating import VersionName, listed_accelerators

    labels = {name_for(known.manifest): known.label for known in released_index(wanted).versions}
    name = VersionName(wanted.publisher, wanted.image, wanted.version)
    return [
        ListedPack(labels.get(each.name, ""), each.name, each.length, each.index_length)
        for each in listed_accelerators(client, name)
        if each.kind == DELTA
    ]


def remove(client: RestClient, wanted: VersionReference, pack: ListedPack) -> None:
    """List a pack no more."""
    from oscirc_blockstore.accelerators import DELTA
    from oscirc_publisher.accelerating import VersionName

    name = VersionName(wanted.publisher, wanted.image, wanted.version)
    client.call("DELETE", f"{name.path}/accelerators/{DELTA}/{pack.name}")


def line_of(packed: Packed) -> str:
    """What a pack is, for people."""
    size = human_bytes(packed.pack_bytes)
    if not packed.made:
        return f"from {packed.base}: {size} (was there already)"
    return (
        f"from {packed.base}: {size} for {packed.records} of {packed.blocks} blocks, "
        f"which cost {human_bytes(packed.whole_bytes)} whole"
    )


def tell(added: Sequence[Packed]) -> None:
    """What was put there, for people."""
    for each in added:
        say(f"delta pack {line_of(each)}")


class _Shown:
    """Draws how far a pack is: first the old blocks that are looked at, then the new ones."""

    def __init__(self, bar: Bar, block_size: int) -> None:
        self._bar, self._block_size = bar, block_size
        self._phase, self._done = "", 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Move the bar."""
        if phase != self._phase:
            self._phase, self._done = phase, 0
            self._bar.reset(total * self._block_size)
            self._bar.set_postfix_str(phase, refresh=False)
        self._bar.update((done - self._done) * self._block_size)
        self._done = done
