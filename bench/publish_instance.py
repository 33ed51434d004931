"""Publishing what an instance wrote, from 50 to 800 MB in an image of 20 GiB, against publishing its flattened disk.

Must show: time and bytes grow no faster than what was written, and not with the disk. Asserted are counts (bytes read
of the overlay, of the base, blocks sent), and that no size takes 15 % more bytes, or seconds, for each byte written
than the next smaller one; 200 MB in an image of 2 GiB take what they take in 20 GiB, within 15 %. Medians of three,
each with content of its own; sizes take turns. Both grow less: old blocks that several writes fall into are sent once,
and of an update the first 256 MiB are compressed harder than the rest (`oscirc_publisher.effort`).

The image is one ext4 with 1 GB of files. The writes are as a guest's are: runs of 8 MiB where nothing was, as of new
files, and for each 400 kB one page among the old files; QEMU's own tool writes them into the overlay.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness import DISKS, MIB, Workstation, fresh_repository, save

from oscirc_vmlaunch import overlays
from oscirc_vmlaunch.instances import Instance, Instances
from oscirc_vmlaunch.records import InstanceRecord

DISK_BYTES, SMALL_DISK_BYTES = 20 << 30, 2 << 30
FILES, FILE_BYTES = 250, 4 * MIB
RUN_BYTES = 8 * MIB
SIZES = tuple(megabytes * 10**6 for megabytes in (50, 100, 200, 400, 800))
TYPICAL = 200 * 10**6
"""The size that is tried in the small image, and against the flattened disk."""
ROUNDS = 3
TOLERANCE = 0.15
BLOCK = 256 << 10


def make_image(path: Path, disk_bytes: int) -> None:
    """A sparse disk with an ext4 that holds 1 GB."""
    source = random.Random(1)  # noqa: S311  # content, not a secret
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for number in range(FILES):
            (Path(folder) / f"file-{number}").write_bytes(
                source.randbytes(FILE_BYTES // 2) + b"%d\n" % number * 500_000
            )
        with path.open("wb") as file:
            file.truncate(disk_bytes)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, str(path)], check=True)


def write(instance: Instance, size: int, seed: int, disk_bytes: int) -> None:
    """As a guest would: `size` bytes in runs where the image has nothing, and pages where it has its files."""
    dice = random.Random(seed)  # noqa: S311  # content, not a secret
    empty = range(disk_bytes * 5 // 8, disk_bytes - (64 << 20), RUN_BYTES)
    places = dice.sample(empty, size // RUN_BYTES)
    with tempfile.TemporaryDirectory(dir=instance.directory) as folder:
        arguments: list[str] = []
        for number, place in enumerate(places):
            content = Path(folder) / str(number)
            content.write_bytes(dice.randbytes(RUN_BYTES // 2) + bytes([number % 255 + 1]) * (RUN_BYTES // 2))
            arguments += ["-c", f"write -s {content} {place} {RUN_BYTES}"]
        for number in range(size // 400_000):
            arguments += [
                "-c",
                f"write -P {number % 255 + 1} {dice.randrange(200 * MIB, 900 * MIB) // 4096 * 4096} 4096",
            ]
        subprocess.run(["qemu-io", "-f", "qcow2", *arguments, str(instance.overlay)], check=True, capture_output=True)


def make_instance(station: Workstation, image: Path, manifest: str, name: str = "large") -> Instance:
    """A stopped instance of the image; nothing is mounted."""
    instances = Instances(station.home / "data" / "oscirc" / "instances")
    record = InstanceRecord(
        name="machine",
        remote="test",
        reference=f"bench/{name}",
        manifest_digest=manifest,
        version="1",
        firmware="bios",
        architecture="x86_64",
        memory_mib=512,
        cpus=1,
        accelerator="tcg",
        mount_point="/nowhere",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    instance = instances.create(record)
    asyncio.run(overlays.create(instance.overlay, image, manifest_digest=manifest))
    return instance


def publish(station: Workstation, disk: str, version: str, *options: str, name: str = "large") -> dict[str, float]:
    """The command's own figures, and the seconds of its process."""
    os.sync()
    started = time.monotonic()
    facts: dict[str, float] = station.json(
        *("publish", disk, f"test:bench/{name}@{version}", "--key", "bench", "--no-channel", "--deltas", "0"),
        *options,
        timeout=1200,
    )
    return {**facts, "process_seconds": time.monotonic() - started}


def main() -> int:
    """Measure all sizes in turn, the small image, then the peer; 1 when a bound is missed."""
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        image = work / "image.raw"
        make_image(image, DISK_BYTES)
        small_image = work / "small.raw"
        make_image(small_image, SMALL_DISK_BYTES)
        with fresh_repository(work / "oscirc") as (station, _):
            first = publish(station, str(image), "1")
            small = publish(station, str(small_image), "1", name="small")
            figures: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
            in_small: list[dict[str, float]] = []
            for number in range(ROUNDS):
                for size in SIZES:
                    with written(station, image, first, size, number * 1000 + size, DISK_BYTES, "large") as instance:
                        version = f"{size}-{number}"
                        figures[size].append(publish(station, "instance:machine", version, "--keep-secrets"))
                        check(figures[size][-1])
                        if (number, size) == (ROUNDS - 1, TYPICAL):
                            flattened, flattening_s = flattened_and_published(station, instance, work / "flat.raw")
                with written(station, small_image, small, TYPICAL, number, SMALL_DISK_BYTES, "small"):
                    in_small.append(publish(station, "instance:machine", f"2-{number}", "--keep-secrets", name="small"))
                    check(in_small[-1])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = {size: summary(figures[size]) for size in SIZES}
    return judge(first, found, summary(in_small), flattened, flattening_s)


@contextlib.contextmanager
def written(
    station: Workstation, image: Path, first: dict[str, float], size: int, seed: int, disk_bytes: int, name: str
) -> Iterator[Instance]:
    """A stopped instance that wrote so much, gone afterwards."""
    instance = make_instance(station, image, str(first["manifest"]), name)
    try:
        write(instance, size, seed, disk_bytes)
        yield instance
    finally:
        Instances(instance.directory.parent).remove("machine")


def flattened_and_published(station: Workstation, instance: Instance, flat: Path) -> tuple[dict[str, float], float]:
    """What it costs who knows no better: a whole disk of it, published; and the seconds that making it took."""
    started = time.monotonic()
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(instance.overlay), str(flat)]
    subprocess.run(convert, check=True)
    flattening_s = time.monotonic() - started
    done = publish(station, str(flat), "flat")
    if done["new_blocks"]:
        raise AssertionError("the flattened disk is another one")
    flat.unlink()
    return done, flattening_s


def grows_no_faster(found: dict[int, dict[str, float]], figure: str) -> bool:
    """Whether no size takes more of this for each byte written than the next smaller one, but for the tolerance."""
    shares = [each[figure] / each["changed_bytes"] for each in found.values()]
    return all(larger <= (1 + TOLERANCE) * smaller for smaller, larger in itertools.pairwise(shares))


def judge(
    first: dict[str, float],
    found: dict[int, dict[str, float]],
    in_small: dict[str, float],
    flattened: dict[str, float],
    flattening_s: float,
) -> int:
    """Save all, with verdicts; 1 when a bound is missed."""
    typical = found[TYPICAL]
    size_matters = abs(in_small["seconds"] / typical["seconds"] - 1)
    grows = {name: grows_no_faster(found, name) for name in ("seconds", "uploaded_bytes")}
    passed = all(grows.values()) and size_matters <= TOLERANCE
    flat_s = flattening_s + flattened["process_seconds"]
    per_100_mb = ", ".join(f"{each['seconds'] / each['changed_bytes'] * 1e8:.2f}" for each in found.values())
    per_byte = ", ".join(f"{each['uploaded_bytes'] / each['changed_bytes']:.2f}" for each in found.values())
    save(
        "publish_instance",
        {
            "disk_bytes": DISK_BYTES,
            "base_data_bytes": first["data_bytes"],
            **{f"{size // 10**6} MB": told(each) for size, each in found.items()},
            f"{TYPICAL // 10**6} MB in a disk of 2 GiB": told(in_small),
            "seconds for each 100 MB written": per_100_mb,
            "bytes sent for each byte written": per_byte,
            "2 GiB instead of 20 GiB, change of seconds": f"{size_matters:.1%} (at most {TOLERANCE:.0%})",
            "flattened, of which all is there already: bytes read": flattened["read_bytes"],
            "flattened, of which all is there already: seconds": round(flat_s, 2),
            "passed": passed,
        },
    )
    return int(not passed)


def told(each: dict[str, float]) -> str:
    """A size's figures in a line."""
    return (
        f"{each['seconds']:.2f} s, {each['seconds_of_publishing']:.2f} of them publishing; "
        f"{each['changed_bytes'] / 1e6:.0f} MB read of the overlay, {each['base_bytes_read'] / 1e6:.0f} of the base; "
        f"{each['new_blocks']:.0f} blocks and {each['new_nodes']:.0f} nodes sent, {each['uploaded_bytes'] / 1e6:.0f} MB"
    )


def check(done: dict[str, float]) -> None:
    """What must hold each time: all that was written is read once, and of the base only what stands beside it."""
    written, scattered = done["changed_bytes"], done["changed_bytes"] // 400_000 + 1
    assert written <= done["overlay_bytes_read"] <= 1.1 * written, done
    assert done["new_blocks"] <= 1.1 * written / BLOCK + scattered, done
    assert done["base_bytes_read"] <= (scattered + 64) * BLOCK, done


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians."""
    names = {
        "seconds": "process_seconds",
        "seconds_of_publishing": "seconds",
        "changed_bytes": "changed_bytes",
        "overlay_bytes_read": "overlay_bytes_read",
        "base_bytes_read": "base_bytes_read",
        "base_blocks_loaded": "base_blocks_loaded",
        "base_nodes_loaded": "base_nodes_loaded",
        "new_blocks": "new_blocks",
        "new_nodes": "new_nodes",
        "uploaded_bytes": "uploaded_bytes",
    }
    return {name: round(statistics.median(one[key] for one in rounds), 2) for name, key in names.items()}


if __name__ == "__main__":
    sys.exit(main())
