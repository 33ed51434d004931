"""Only `oscirc` processes against a hostile static mirror, root keys offline, clocks moved by 13 months.

A real repository is made and published to once; a mirror then serves copies of its plain files and lies in every way
it can. Each attack must be refused by the command that a user types, with the exit code and the words documented; no
reader ever gets an unverified byte. Renewals by the operator and the publisher must make everything work again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import Repository, Workstation, add_publisher, initialise, serving
from support.fault_server import FaultServer, flip_bit, over_long, pad, replace, shorten, truncate

BLOCK = 65536
IMAGE = "alice/tiny"


def clock(days: int) -> dict[str, str]:
    """Moves the calendar of a process and its children; the `faketime` command would wait for the driver to end."""
    return {
        "LD_PRELOAD": "/usr/$LIB/faketime/libfaketimeMT.so.1",
        "FAKETIME": f"+{days}d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def write_disk(path: Path, salt: str, blocks: int = 12) -> bytes:
    content = b"".join(
        b"".join(hashlib.sha256(f"{salt if i == 3 else ''}{i}:{j}".encode()).digest() for j in range(BLOCK // 32))
        for i in range(blocks)
    )
    path.write_bytes(content)
    return content


@dataclass
class World:
    operator: Workstation
    alice: Workstation
    repository: Repository
    tree_1: Path
    tree_2: Path
    disks: dict[str, bytes]

    @property
    def pin(self) -> str:
        return self.repository.url.partition("#")[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("world")
    operator, alice = Workstation(base / "operator"), Workstation(base / "alice")
    repository = initialise(operator, base / "repository", base / "offline-keys")
    disks = {}
    with serving(operator, repository):
        add_publisher(alice, repository, "alice")
        add_publisher(Workstation(base / "mallory"), repository, "mallory")
        for version in ("1", "2"):
            disks[version] = write_disk(base / "disk.raw", version)
            options = ("--key", "alice", "--block-size", BLOCK, "--changelog", f"number {version}")
            alice.run("publish", base / "disk.raw", f"test:{IMAGE}@{version}", *options)
            shutil.copytree(repository.tree, base / f"tree-{version}")
    return World(operator, alice, repository, base / "tree-1", base / "tree-2", disks)


@pytest.fixture
def mirror(world, tmp_path):
    tree = tmp_path / "mirror"
    shutil.copytree(world.tree_2, tree)
    with FaultServer(tree) as server:
        server.tree = tree
        yield server


@pytest.fixture
def victim(world, mirror, tmp_path):
    station = Workstation(tmp_path / "victim")
    station.run("remote", "add", "m", f"{mirror.url}#{world.pin}")
    yield station
    for mount in station.json("status")["mounts"]:
        station.run("umount", mount["mountpoint"])


def later(station: Workstation, days: int) -> Workstation:
    """The same person's machine with its clock moved."""
    return Workstation(station.home, extra=clock(days))


def take_away(mountpoint: Path) -> None:
    """Not by `oscirc umount`: libfaketime breaks the timed waits (sem_clockwait) with which a driver ends."""
    subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=True)


def serve_tree(mirror, tree: Path) -> None:
    shutil.rmtree(mirror.tree)
    shutil.copytree(tree, mirror.tree)


def mounted(station: Workstation, reference: str, directory: Path, *options: object) -> Path:
    directory.mkdir(exist_ok=True)
    station.run("mount", reference, directory, *options)
    return directory / "disk.raw"


def test_the_honest_case_first(world, victim, mirror, tmp_path):
    shown = victim.json("show", f"m:{IMAGE}")
    assert (shown["version"], shown["disk_size"]) == ("2", 12 * BLOCK)
    assert mounted(victim, f"m:{IMAGE}@1", tmp_path / "mnt").read_bytes() == world.disks["1"]
    assert not [r for r in mirror.requests if r.path.startswith("api/")]


def test_a_rollback_is_refused_but_a_receipt_still_mounts(world, victim, mirror, tmp_path):
    victim.run("show", f"m:{IMAGE}")
    disk = mounted(victim, f"m:{IMAGE}", tmp_path / "mnt")
    assert disk.read_bytes() == world.disks["2"]
    victim.run("umount", tmp_path / "mnt")
    serve_tree(mirror, world.tree_1)
    said = victim.refused("show", f"m:{IMAGE}", code=4)
    assert "after" in said
    assert "version" in said
    done = victim.attempt("mount", f"m:{IMAGE}", tmp_path / "mnt")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    assert disk.read_bytes() == world.disks["2"]


def test_frozen_metadata_is_refused_with_both_dates_but_a_receipt_still_mounts(world, victim, mirror, tmp_path):
    assert mounted(victim, f"m:{IMAGE}", tmp_path / "mnt").read_bytes() == world.disks["2"]
    victim.run("umount", tmp_path / "mnt")
    moved = later(victim, 8)
    said = moved.refused("show", f"m:{IMAGE}", code=4)
    assert "your clock says" in said
    moved.refused("pull", f"m:{IMAGE}", code=4)
    mirror.close()
    done = moved.attempt("mount", f"m:{IMAGE}", tmp_path / "mnt")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    assert (tmp_path / "mnt" / "disk.raw").read_bytes() == world.disks["2"]
    take_away(tmp_path / "mnt")


def test_a_newcomer_refuses_expired_metadata_and_mounts_nothing(world, victim, tmp_path):
    (tmp_path / "mnt").mkdir()
    later(victim, 8).refused("mount", f"m:{IMAGE}", tmp_path / "mnt", code=4)
    assert list((tmp_path / "mnt").iterdir()) == []


def test_another_root_than_the_url_s_is_refused(world, victim, mirror):
    other = "ab" * 32
    victim.refused("remote", "add", "x", f"{mirror.url}#sha256={other}", code=3)
    (mirror.tree / "roots" / f"{other}.json").write_bytes(next((world.tree_2 / "roots").iterdir()).read_bytes())
    said = victim.refused("remote", "add", "x", f"{mirror.url}#sha256={other}", code=4)
    assert "another root of trust" in said
    victim.refused("remote", "add", "y", mirror.url, code=2)


def test_metadata_signed_by_nobody_we_know_is_refused(victim, mirror):
    path = mirror.tree / "metadata" / "timestamp.json"
    document = json.loads(path.read_text())
    document["signed"]["version"] += 1
    path.write_text(json.dumps(document))
    said = victim.refused("show", f"m:{IMAGE}", code=4)
    assert "sign" in said


@pytest.mark.parametrize("pattern", ["targets/alice/*.json", "metadata/*.alice.json"])
def test_a_tampered_index_or_role_is_refused(victim, mirror, pattern):
    mirror.inject(pattern, flip_bit(at=200))
    assert victim.attempt("show", f"m:{IMAGE}").returncode in (4, 7)
    mirror.heal()
    victim.run("show", f"m:{IMAGE}")


@pytest.mark.parametrize("pattern", ["metadata/*.snapshot.json", "metadata/*.targets.json"])
def test_tampered_metadata_is_refused_to_a_newcomer(world, mirror, tmp_path, pattern):
    newcomer = Workstation(tmp_path / "newcomer")
    mirror.inject(pattern, flip_bit(at=200))
    assert newcomer.attempt("remote", "add", "m", f"{mirror.url}#{world.pin}").returncode in (4, 7)
    assert newcomer.json("remote", "list")["remotes"] == []


def test_endless_metadata_is_cut_off(victim, mirror):
    mirror.inject("metadata/timestamp.json", over_long(None))
    assert victim.attempt("show", f"m:{IMAGE}", timeout=60).returncode in (4, 5)


def test_a_tampered_or_reformatted_manifest_is_refused(victim, mirror):
    file = next(path for path in (mirror.tree / "manifests").iterdir())
    originals = {path: path.read_bytes() for path in (mirror.tree / "manifests").iterdir()}
    assert file.exists()
    for change in (
        lambda raw: raw.replace(b'"bios"', b'"uefi"'),
        lambda raw: json.dumps(json.loads(raw), indent=1).encode(),
        lambda raw: raw + b"\n",
        lambda raw: b"[" * 60000,
        lambda raw: raw + b" " * 100_000,
    ):
        for path, raw in originals.items():
            path.write_bytes(change(raw))
        assert victim.attempt("show", f"m:{IMAGE}").returncode in (5, 7)


def bomb() -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=19).compress(bytes(1 << 27))


def other_block(world: World) -> bytes:
    """A rightly made frame of the right size, of another block."""
    import zstandard

    return zstandard.ZstdCompressor().compress(os.urandom(BLOCK))


ATTACKS = {
    "a flipped bit": lambda _: flip_bit(),
    "a flipped bit in the header": lambda _: flip_bit(at=5),
    "a swapped block": lambda world: replace(other_block(world)),
    "a shortened frame": lambda _: shorten(100),
    "a padded frame": lambda _: pad(100),
    "an over-long frame": lambda _: over_long(),
    "an over-long frame without length": lambda _: over_long(None),
    "a bomb": lambda _: replace(bomb()),
    "an empty file": lambda _: replace(b""),
    "not a frame": lambda _: replace(b"<html>captive portal</html>"),
    "a broken connection": lambda _: truncate(1000),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_bad_block_files_never_reach_a_reader(world, victim, mirror, tmp_path, attack):
    disk = mounted(victim, f"m:{IMAGE}", tmp_path / "mnt", "--deadline", "2")  # nodes and the first block are good
    mirror.inject("blocks/*", ATTACKS[attack](world))
    expected = world.disks["2"]
    with disk.open("rb") as file, pytest.raises(OSError, match="Input/output error"):
        for offset in range(0, len(expected), BLOCK):
            file.seek(offset)
            assert file.read(BLOCK) == expected[offset : offset + BLOCK]
    assert victim.attempt("pull", f"m:{IMAGE}", "--deadline", "2").returncode in (5, 7)
    mirror.heal()
    assert read_again(disk) == expected


def read_again(disk: Path) -> bytes:
    """The driver lets a failed range fail for a quarter of a second more; a retry, as QEMU's, finds it healed."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return disk.read_bytes()
        except OSError:
            assert time.monotonic() < deadline


def test_a_tampered_node_is_refused(world, victim, mirror, tmp_path):
    shown = victim.json("show", f"m:{IMAGE}")
    root = shown["table_root"]
    mirror.inject(f"blocks/sha256/{root[:2]}/{root}.zst", flip_bit())
    victim.refused("pull", f"m:{IMAGE}", code=7)
    (tmp_path / "mnt").mkdir()
    assert victim.attempt("mount", f"m:{IMAGE}", tmp_path / "mnt").returncode == 7


@pytest.mark.parametrize(
    "reference",
    ["../x", "m:../../etc/x", "m:?lice/x", "m:*/x", "m:alice/x@../1", "m:alice/x#a/b", "m:root/x@", "alice"],
)
def test_names_that_climb_or_glob_are_refused_by_every_command(victim, reference, tmp_path):
    (tmp_path / "disk").write_bytes(bytes(BLOCK))
    (tmp_path / "mnt").mkdir()
    victim.refused("show", reference, code=2)
    victim.refused("mount", reference, tmp_path / "mnt", code=2)
    if "/" in reference:  # else it could name an instance
        victim.refused("boot", reference, code=2)
    victim.refused("publish", tmp_path / "disk", reference, "--key", "alice", code=2)


def test_a_delegation_to_a_glob_is_refused(world, victim):
    victim.run("key", "create", "x")
    public = victim.home / "data" / "oscirc" / "keys" / "x.pub"
    for name in ("?lice", "a*", "targets", "../a"):
        victim.refused("publisher", "add", f"m:{name}", public, "--keys", world.repository.keys, code=2)


def test_a_qcow2_with_a_backing_file_is_refused(world, tmp_path):
    secret, crafted = tmp_path / "secret.raw", tmp_path / "crafted.qcow2"
    secret.write_bytes(os.urandom(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(crafted)]
    subprocess.run(make, check=True)
    said = world.alice.refused("publish", crafted, "test:alice/x@1", "--key", "alice", code=2)
    assert "backing" in said


def test_after_thirteen_months_everything_is_refused_until_it_is_renewed(world, mirror, victim, tmp_path):
    victim.run("show", f"m:{IMAGE}")
    operator, alice, reader = later(world.operator, 395), later(world.alice, 395), later(victim, 395)
    reader.refused("show", f"m:{IMAGE}", code=4)
    repository = world.repository
    status = json.loads(operator.run("serve", "status", "--data", repository.directory, "--json", code=4))
    assert not status["healthy"]
    assert status["can_impersonate_publishers"] is False

    operator.run("serve", "resign", "targets", "--data", repository.directory, "--keys", repository.keys)
    operator.run("serve", "resign", "root", "--data", repository.directory, "--keys", repository.keys)
    with serving(operator, repository):
        said = reader_of(repository, tmp_path, 395).refused("show", f"m:{IMAGE}", code=4)
        assert "alice" in said  # the publisher's own role has lapsed too
        alice.run("publisher", "resign", "test:alice", "--key", "alice")
        alice.run("publisher", "resign", "test:alice", "--key", "alice")  # again does no harm
        status = operator.json("serve", "status", "--data", repository.directory)
        serve_tree(mirror, repository.tree)
    assert reader.json("show", f"m:{IMAGE}")["version"] == "2"  # over thirteen months of roots, from the old one
    disk = mounted(reader, f"m:{IMAGE}", tmp_path / "mnt")
    assert disk.read_bytes() == world.disks["2"]
    take_away(disk.parent)
    serve_tree(mirror, world.tree_2)
    reader.refused("show", f"m:{IMAGE}", code=4)


def reader_of(repository: Repository, tmp_path: Path, days: int) -> Workstation:
    station = Workstation(tmp_path / "newcomer", extra=clock(days))
    station.run("remote", "add", "m", repository.url)
    return station
