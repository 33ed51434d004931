"""A repository that has every state a page can show, published through the real API, then served by `oscirc serve`.

- `made(directory)` publishes in this process and gives a `Catalog`; `served(catalog)` runs the server on it as a process.
- In it: three publishers, one of whose roles ends soon; images of several systems; versions that are current, withdrawn,
  withdrawn for security and deleted; channels; a recorded boot, a delta pack and lists of packages; a draft half
  uploaded; jobs of every end; quotas, users, a robot, tokens, and the audit of all that.
- With `hostile` also an image whose publisher writes markup, very long words and words from right to left.
- `scale` multiplies the data: 1 for tests, more where sizes should look like those of a system.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType

import httpx
from support.commands import Repository, Workstation, free_port, serving
from support.places import OneDirectory

from oscirc_blockstore import bundle, delta, package_list, png_making, screenshot
from oscirc_blockstore.about import About
from oscirc_blockstore.accelerators import BUNDLE, DELTA, PACKAGES, SCREENSHOT
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.delta import MadeRecord, Run, Source
from oscirc_blockstore.delta_record import encode
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.png_making import Picture
from oscirc_blockstore.screenshot import DEFAULT_NAME
from oscirc_server.app import create_app
from oscirc_server.clock import system_clock
from oscirc_server.initialising import initialise
from oscirc_server.installation import Installation
from oscirc_server.models import JOB_RUNNING
from oscirc_server.reconciling import reconcile
from oscirc_server.services import jobs
from tests.unit.server.in_process import client_of
from tests.unit.server.server_world import BLOCK, PASSPHRASE, Api, Disk, Publisher, World, block

PASSWORD = "correct horse battery staple"
ADMINISTRATOR = "root"
PUBLISHER = "bea"
READER = "rita"
DISK_BLOCKS = (2 << 30) // BLOCK
BATCH, SEGMENT = 200, 32
LONG_WORD = "x" * 60
HOSTILE = (
    f"<script>document.title='taken'</script> \u05e9\u05dc\u05d5\u05dd {LONG_WORD * 30} <img src=x onerror=alert(1)>"
)

README = """# A small Debian

Boots to a *login prompt* in seconds; see [the handbook](https://www.debian.org/doc/).

## What is on it

| what | where |
|---|---|
| editors | `vim`, `nano` |
| web server | none, see [below](#setting-up) |

### Setting up

1. Log in as `user`.
2. Bring it up to date:

   ```sh
   sudo apt update && sudo apt full-upgrade
   ```

> Nothing is configured to listen.
"""
SAID = About(
    "Debian 12, small",
    "A server without a desktop, for trying things out and throwing them away.",
    README,
    "GPL-2.0-or-later AND MIT",
    "https://www.debian.org/",
    "server",
    MappingProxyType({"12.8": "2028-06-30"}),
)
SAID_BADLY = About(
    HOSTILE[:100],
    HOSTILE[:300],
    f"{HOSTILE}\n\n# {HOSTILE}\n\n###### deep\n\n[x](javascript:alert(1)) ![x](https://evil.example/x.png)\n\n"
    f"```\n{LONG_WORD * 30}\n```\n\n{'|a' * 40}|\n{'|-' * 40}|\n{('|' + LONG_WORD) * 40}|\n",
    LONG_WORD * 3,
    f"https://{LONG_WORD}.{LONG_WORD}.example/",
    "desktop",
    MappingProxyType({"": "2020-01-01"}),
)


@dataclass(frozen=True)
class Catalog:
    """What was made: where it will listen, and what the pages' addresses need."""

    repository: Repository
    draft: str
    operator: Workstation

    @property
    def url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.repository.port}"


def made(
    directory: Path,
    *,
    scale: int = 1,
    hostile: bool = True,
    public_url: str = "",
    picture: Callable[[str], bytes] | None = None,
) -> Catalog:
    """The repository, not yet running; `picture` gives a PNG of a guest's display instead of the drawn one."""
    port = free_port()
    result = initialise(
        directory / "data",
        directory / "keys",
        PASSPHRASE,
        public_url or f"http://127.0.0.1:{port}",
        "Example Systems",
        clock=system_clock,
    )
    place = OneDirectory(directory / "data")
    world = World(directory / "data", result.keys_dir, result, system_clock, place)
    with world.open() as installation:
        reconcile(installation)
        publishers = {name: _Shop(world.add_publisher(name), scale) for name in ("alice", "bob", "carol")}
        with client_of(create_app(installation)) as http:
            api = Api(http, result.admin_token)
            _publish(api, publishers, hostile=hostile, picture=picture or console_picture)
            draft = _draft(api, publishers["alice"])
            _people(api, 24 * scale)
            _jobs(installation)
    repository = Repository(directory / "data", world.keys, result.remote_url, result.admin_token, port)
    return Catalog(repository, draft, Workstation(directory / "operator"))


@contextlib.contextmanager
def served(catalog: Catalog) -> Iterator[Catalog]:
    """The same, answering."""
    with serving(catalog.operator, catalog.repository):
        yield catalog


@dataclass
class _Shop:
    """A publisher, and the disks that it has published by image and version."""

    publisher: Publisher
    scale: int
    disks: dict[tuple[str, str], Disk] = field(default_factory=dict)
    contents: dict[tuple[str, str], Sequence[bytes | None]] = field(default_factory=dict)

    def index(self, image: str) -> ImageIndex:
        return self.publisher.indexes.get(image, ImageIndex(self.publisher.name, image))

    def release(
        self, api: Api, image: str, label: str, /, *, clusters: int = 2, after: str = "", changelog: str = "", **system
    ) -> None:
        """A version; with `after` it is that version with some of its data changed."""
        contents = self.contents.get((image, after)) or self._fresh(f"{image}{label}", clusters)
        if after:
            contents = self._changed(contents, label)
        disk = self.publisher.build(image, contents, **system)
        self.contents[image, label], self.disks[image, label] = contents, disk
        draft = self._staged(api, image, label, disk)
        index = self.index(image).with_version(ImageVersion(label, disk.digest, self._date(), changelog))
        indexes = {**self.publisher.indexes, image: index.with_channel("stable", label)}
        answer = api.call("POST", f"drafts/{draft}/release", json=self.publisher.offer(indexes))
        assert answer.status_code == 200, answer.text
        self.publisher.took_force(indexes)

    def _staged(self, api: Api, image: str, label: str, disk: Disk) -> str:
        """A draft with everything uploaded, in bodies that are not too large."""
        draft = api.draft(self.publisher.name, image, label)
        lacking = set(api.missing(draft, [record.digest for record in disk.records]))
        missing = [record for record in disk.records if record.digest in lacking]
        for at in range(0, len(missing), BATCH):
            assert api.upload(draft, missing[at : at + BATCH]).status_code == 200
        assert api.call("PUT", f"drafts/{draft}/manifest", content=disk.raw).status_code == 204
        return draft

    def change(self, api: Api, index: ImageIndex, **role: object) -> None:
        """Sign an index anew."""
        indexes = {**self.publisher.indexes, index.image: index}
        offer = self.publisher.offer(indexes, self.publisher.role(indexes, **role))
        answer = api.call("PUT", f"publishers/{self.publisher.name}/role", json=offer)
        assert answer.status_code == 200, answer.text
        self.publisher.took_force(indexes)

    def _date(self) -> str:
        released = datetime(2026, 1, 10, 8, tzinfo=UTC) + timedelta(days=9 * len(self.disks))
        return released.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _fresh(self, seed: str, clusters: int) -> list[bytes | None]:
        """Zeros with some regions of data, the first of them at the beginning."""
        contents: list[bytes | None] = [None] * DISK_BLOCKS
        draw = random.Random(seed)
        for cluster in range(clusters):
            start = 0 if cluster == 0 else draw.randrange(DISK_BLOCKS - 20 * self.scale)
            for at in range(start, start + draw.randrange(4, 12) * self.scale):
                contents[at] = block(f"{seed}{at}")
        return contents

    def _changed(self, contents: Sequence[bytes | None], seed: str) -> list[bytes | None]:
        draw, changed = random.Random(seed), list(contents)
        for at in [at for at, old in enumerate(contents) if old is not None]:
            chance = draw.random()
            if chance < 0.15:
                changed[at] = block(f"{seed}{at}")[: delta.PAGE_SIZE] + contents[at][delta.PAGE_SIZE :]
            elif chance < 0.2:
                changed[at] = None
                changed[draw.randrange(DISK_BLOCKS)] = block(f"{seed}new{at}")
        return changed

    def put(self, api: Api, image: str, version: str, kind: str, name: str, raw: bytes) -> None:
        """An accelerator of a version."""
        path = f"images/{self.publisher.name}/{image}/versions/{version}/accelerators/{kind}/{name}"
        answer = api.call("PUT", path, params={"sha256": digest_of(raw).hex()}, content=raw)
        assert answer.status_code == 200, answer.text


def _publish(api: Api, shops: Mapping[str, _Shop], *, hostile: bool, picture: Callable[[str], bytes]) -> None:
    alice, bob, carol = shops["alice"], shops["bob"], shops["carol"]
    debian = {
        "family": "debian",
        "firmware": "uefi",
        "minimum_memory_mib": 1024,
        "default_login": "user, password live",
    }
    before = ""
    for version, said in (
        ("12.4", "The first."),
        ("12.5", "A newer kernel."),
        ("12.6", "Time zones; the mail server is no longer installed."),
        ("12.7", "Security updates of August.\n\n- openssl 3.0.14\n- linux 6.1.106"),
        ("12.8", "Security updates of November.\n\n- openssl 3.0.15\n- linux 6.1.115\n- tzdata 2024b"),
    ):
        alice.release(api, "debian", version, clusters=8, after=before, changelog=said, version=version, **debian)
        before = version
    alice.release(
        api, "debian-desktop", "12.8", clusters=12, **{**debian, "version": "12.8", "minimum_memory_mib": 4096}
    )
    index = alice.index("debian").without_versions(["12.4"], date="2026-03-01T08:00:00Z", why="nobody used it any more")
    index = index.with_yank("12.5", Yank("Disks of more than 2 TiB are not found at boot.", "2026-02-20T08:00:00Z"))
    index = index.with_yank("12.6", Yank("The kernel can be taken over.", "2026-02-21T08:00:00Z", security=True))
    alice.change(api, replace(index.with_channel("previous", "12.7"), about=SAID))
    desktop = replace(SAID, title="Debian 12 with a desktop", kind="desktop", readme="", summary="")
    alice.change(api, replace(alice.index("debian-desktop"), about=desktop))
    _accelerate(api, alice)
    for family, version, firmware, memory in (
        *(("alpine", "3.20", "bios", 256), ("ubuntu", "24.04", "uefi", 2048), ("fedora", "41", "uefi", 2048)),
        *(("opensuse", "15.6", "uefi", 1024), ("freebsd", "14.1", "bios", 512), ("netbsd", "10.0", "bios", 128)),
        *(("openbsd", "7.6", "bios", 256), ("haiku", "r1-beta5", "bios", 512), ("guix", "1.4", "uefi", 2048)),
    ):
        facts = {"family": family, "version": version, "firmware": firmware, "minimum_memory_mib": memory}
        bob.release(api, family, version, **facts)
    bob.release(api, "alpine", "3.21", after="3.20", changelog="A new kernel.", family="alpine", version="3.21")
    for shop, image, version in ((alice, "debian", "12.8"), (alice, "debian-desktop", "12.8"), (bob, "alpine", "3.21")):
        words = f"Console of {image} {version} at its login prompt"
        shown = screenshot.build(shop.disks[image, version].digest, words, picture(image))
        shop.put(api, image, version, SCREENSHOT, DEFAULT_NAME, shown)
    circuit = {"family": "busybox", "minimum_memory_mib": 256, "default_login": "root, password oscirc"}
    carol.release(api, "circuit", "1", version="1", **circuit)
    if hostile:
        text = {
            "family": "<b>" + LONG_WORD,
            "version": LONG_WORD,
            "default_login": (HOSTILE[:100] + LONG_WORD * 3)[:200],
        }
        carol.release(api, LONG_WORD, "1." + LONG_WORD, changelog=HOSTILE, **text)
        index = carol.index(LONG_WORD).with_yank("1." + LONG_WORD, Yank(HOSTILE[:500], "2026-03-01T08:00:00Z"))
        carol.change(api, replace(index.with_channel("c" + LONG_WORD, "1." + LONG_WORD), about=SAID_BADLY))
    soon = datetime.fromtimestamp(int(system_clock()), UTC) + timedelta(days=12)
    carol.change(api, carol.index("circuit"), expires=soon)


def _accelerate(api: Api, alice: _Shop) -> None:
    """A bundle of what a boot reads, a pack from the version before, and both versions' packages."""
    old, new = alice.disks["debian", "12.7"], alice.disks["debian", "12.8"]
    entries = tuple(
        Entry(record.digest, record.raw_size) for record in (*new.nodes, *new.blocks[: len(new.blocks) // 4])
    )
    raw_of = {digest_of(piece): piece for piece in alice.contents["debian", "12.8"] if piece is not None}
    lengths = {record.digest: len(record.frame) for record in new.records}
    nodes = len(new.nodes)
    groups = [entries[:nodes], *(entries[at : at + SEGMENT] for at in range(nodes, len(entries), SEGMENT))]
    frames = [
        bundle.compress_segment([raw_of.get(entry.digest, bytes(entry.raw_size)) for entry in group], 1)
        for group in groups
    ]
    alice.put(api, "debian", "12.8", BUNDLE, "boot", b"".join(bundle.build(new.digest, BLOCK, groups, frames)))
    records, frames = [], []
    for before, after in zip(alice.contents["debian", "12.7"], alice.contents["debian", "12.8"], strict=True):
        if before is not None and after is not None and before != after:
            frames.append(encode(after[: delta.PAGE_SIZE], b""))
            kept = Run(digest_of(before), 1, BLOCK // delta.PAGE_SIZE - 1)
            runs = (Run(Source.LITERAL, 0, 1), kept)
            records.append(MadeRecord(digest_of(after), lengths[digest_of(after)], len(frames[-1]), runs))
    pack = delta.build_index(new.digest, old.digest, BLOCK, records, []) + b"".join(frames)
    alice.put(api, "debian", "12.8", DELTA, delta.name_for(old.digest), pack)
    for version, packages in PACKAGES_OF.items():
        listed = package_list.of(alice.disks["debian", version].digest, packages).serialise()
        alice.put(api, "debian", version, PACKAGES, "installed", listed)


@cache
def console_picture(seed: str = "console") -> bytes:
    """A PNG like a console's: lines of grey words on black, and a white block where one would type."""
    width, height, line, letter = 640, 400, 16, 8
    draw, pixels = random.Random(seed), bytearray(3 * width * height)
    for top in range(0, height - 2 * line, line):
        for left in range(0, draw.randrange(10, 70) * letter, letter):
            if draw.random() < 0.85:
                _fill(pixels, width, (left, left + letter - 2), (top + 4, top + 12), b"\xaa\xaa\xaa")
    _fill(pixels, width, (0, letter), (height - 2 * line, height - line), b"\xff\xff\xff")
    return png_making.encode(Picture(width, height, bytes(pixels)))


def _fill(pixels: bytearray, width: int, columns: tuple[int, int], rows: tuple[int, int], colour: bytes) -> None:
    for row in range(*rows):
        start = 3 * (row * width + columns[0])
        pixels[start : start + 3 * (columns[1] - columns[0])] = colour * (columns[1] - columns[0])


PACKAGES_OF = {
    "12.7": {"base-files": "12.4+deb12u7", "libssl3": "3.0.14-1", "linux-image": "6.1.106-3", "nano": "7.2-1"},
    "12.8": {"base-files": "12.4+deb12u8", "libssl3": "3.0.15-1", "linux-image": "6.1.115-1", "tzdata": "2024b-0"},
}


def _draft(api: Api, alice: _Shop) -> str:
    """A version that is half uploaded."""
    disk = alice.publisher.build("debian", alice._fresh("13", 3), family="debian", version="13.0", firmware="uefi")
    draft = api.draft("alice", "debian", "13.0")
    api.missing(draft, [record.digest for record in disk.records])
    assert api.upload(draft, disk.records[: len(disk.records) // 2]).status_code == 200
    return draft


def _people(api: Api, quota_mib: int) -> None:
    def done(method: str, path: str, body: object) -> httpx.Response:
        answer = api.call(method, path, json=body)
        assert answer.is_success, answer.text
        return answer

    for name in (ADMINISTRATOR, PUBLISHER, READER):
        done("POST", "users", {"name": name, "password": PASSWORD, "admin": name == ADMINISTRATOR})
    done("PUT", f"publishers/alice/members/{PUBLISHER}", {"role": "owner"})
    done("PUT", f"publishers/bob/members/{READER}", {"role": "reader"})
    done("POST", "publishers/alice/robots", {"name": "nightly"})
    done("POST", "tokens", {"name": "nightly builds", "scopes": ["publish:alice"], "account": PUBLISHER})
    done("PUT", "publishers/alice/quota", {"unique_bytes": quota_mib << 20, "logical_bytes": None})


def _jobs(installation: Installation) -> None:
    """One of every end."""
    now_s = installation.now_s()

    def asked(kind: str, version: str, argument: str) -> None:
        with installation.database.write() as session:
            jobs.queue(session, jobs.Wanted(kind, "alice", "debian", version, argument), now_s, requested_by=PUBLISHER)

    asked(jobs.BUNDLE_JOB, "12.7", "boot")
    finished = jobs.take(installation, "worker-1")
    assert finished is not None
    assert jobs.finish(installation, finished.id, "worker-1", {"bytes": 1 << 20})
    asked(jobs.DELTA_JOB, "12.7", "12.6")
    failed = jobs.take(installation, "worker-1")
    assert failed is not None
    assert jobs.fail(installation, failed, "worker-1", "no room is left on the disk", may_pass=False)
    asked(jobs.DELTA_JOB, "12.8", "12.6")
    running = jobs.take(installation, "worker-1")
    assert running is not None
    assert running.state == JOB_RUNNING
    asked(jobs.BUNDLE_JOB, "12.8", "boot")
