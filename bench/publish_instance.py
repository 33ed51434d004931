"""Publishing what an instance wrote, 200 MB and 400 MB in an image of 20 GiB, against publishing its flattened disk.

Must show: time and bytes follow what was written. Asserted are counts (bytes read of the overlay, of the base, blocks
sent); the seconds of the two sizes are reported with their ratio, medians of three, each with content of its own.

The image is one ext4 of 20 GiB with 1 GB of files. The writes are as a guest's are: runs of 8 MiB where nothing was, as
of new files, and for each 400 kB one page among the old files; QEMU's own tool writes them into the overlay.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from harness import DISKS, MIB, Workstation, fresh_repository, save

from oscirc_vmlaunch import overlays
from oscirc_vmlaunch.instances import Instance, Instances
from oscirc_vmlaunch.records import InstanceRecord

DISK_BYTES = 20 << 30
FILES, FILE_BYTES = 250, 4 * MIB
RUN_BYTES = 8 * MIB
SIZES = (200 * 10**6, 400 * 10**6)
ROUNDS = 3
BLOCK = 256 << 10


def make_image(path: Path) -> None:
    """A sparse disk with an ext4 that holds 1 GB."""
    source = random.Random(1)  # noqa: S311  # content, not a secret
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for number in range(FILES):
            (Path(folder) / f"file-{number}").write_bytes(
                source.randbytes(FILE_BYTES // 2) + b"%d\n" % number * 500_000
            )
        with path.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, str(path)], check=True)


def write(instance: Instance, size: int, seed: int) -> None:
    """As a guest would: `size` bytes in runs where the image has nothing, and pages where it has its files."""
    dice = random.Random(seed)  # noqa: S311  # content, not a secret
    places = dice.sample(range(3 << 30, 19 << 30, RUN_BYTES), size // RUN_BYTES)
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


def make_instance(station: Workstation, image: Path, manifest: str) -> Instance:
    """A stopped instance of the image; nothing is mounted."""
    instances = Instances(station.home / "data" / "oscirc" / "instances")
    record = InstanceRecord(
        name="machine",
        remote="test",
        reference="bench/large",
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


def publish(station: Workstation, disk: str, version: str, *options: str) -> dict[str, float]:
    """The command's own figures, and the seconds of its process."""
    os.sync()
    started = time.monotonic()
    facts: dict[str, float] = station.json(
        *("publish", disk, f"test:bench/large@{version}", "--key", "bench", "--no-channel", "--deltas", "0"),
        *options,
        timeout=1200,
    )
    return {**facts, "process_seconds": time.monotonic() - started}


def main() -> None:
    """Measure both sizes in turn, then the peer."""
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    figures: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    try:
        image = work / "image.raw"
        make_image(image)
        with fresh_repository(work / "oscirc") as (station, _):
            first = publish(station, str(image), "1")
            for number in range(ROUNDS):
                for size in SIZES:
                    instance = make_instance(station, image, str(first["manifest"]))
                    write(instance, size, number * 1000 + size)
                    done = publish(station, "instance:machine", f"{size}-{number}", "--keep-secrets")
                    check(done)
                    figures[size].append(done)
                    flat = work / "flat.raw"
                    if (number, size) == (ROUNDS - 1, SIZES[0]):
                        started = time.monotonic()
                        convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(instance.overlay), str(flat)]
                        subprocess.run(convert, check=True)
                        flattening_s = time.monotonic() - started
                        flattened = publish(station, str(flat), "flat")
                        if flattened["new_blocks"]:
                            raise AssertionError("the flattened disk is another one")
                        flat.unlink()
                    Instances(instance.directory.parent).remove("machine")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    small, large = (summary(figures[size]) for size in SIZES)
    save(
        "publish_instance",
        {
            "disk_bytes": DISK_BYTES,
            "base_data_bytes": first["data_bytes"],
            **{f"{key}, {size // 10**6} MB": value for size in SIZES for key, value in summary(figures[size]).items()},
            "ratio_of_seconds": round(large["seconds"] / small["seconds"], 3),
            "ratio_of_bytes_sent": round(large["uploaded_bytes"] / small["uploaded_bytes"], 3),
            "flattened_read_bytes": flattened["read_bytes"],
            "flattened_seconds": round(flattening_s + flattened["process_seconds"], 2),
            "ratio_to_flattened": round(small["seconds"] / (flattening_s + flattened["process_seconds"]), 3),
        },
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
    main()
