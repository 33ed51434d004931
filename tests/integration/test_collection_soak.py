"""Five minutes of publishers, deletions and collections at once, over the real API: every released version is whole.

Publishers are threads with the real client; the server is a process; collections are processes of their own, one after
the other, with a grace so short that blocks are deleted all the time. Disks are made from a small pool of contents, so
that a block which one version gave up is wanted again by another at any moment. `OSCIRC_SOAK_SECONDS` sets the length.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import ImageVersion
from oscirc_publisher import changing

from .test_publisher_server import BLOCK, Site, site  # noqa: F401  (a fixture)

SECONDS = float(os.environ.get("OSCIRC_SOAK_SECONDS", "300"))
PUBLISHERS = 4
POOL = 60
BLOCKS = 12

COLLECT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from oscirc_server.administration import Administration
from oscirc_server.settings import CollectionSettings
quick = CollectionSettings(told_for_s=-7 * 86_400 - 1, condemned_for_s=0, orphan_age_s=1)
print(json.dumps(asdict(Administration(Path(sys.argv[1])).collect(quick))))
"""
"""`told_for_s` takes back the seven days of a snapshot's life: what the newest one does not name goes at once."""


@dataclass
class Counts:
    """What happened; for the report."""

    published: int = 0
    deleted_versions: int = 0
    sent_bytes: int = 0
    collections: int = 0
    condemned: int = 0
    revived: int = 0
    deleted: int = 0
    orphans: int = 0
    longest_publication_s: float = 0.0
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def content(number):
    return random.Random(number).randbytes(BLOCK // 2) + bytes(BLOCK // 2)


def write_disk(path, source):
    pieces = [content(source.randrange(POOL)) for _ in range(BLOCKS)]
    path.write_bytes(b"".join(pieces))
    return path


def publish_and_delete(site, directory, number, until, counts):  # noqa: F811
    source, kept, serial = random.Random(number), [], 0
    directory.mkdir()
    while time.monotonic() < until:
        serial += 1
        version = f"{number}.{serial}"
        path = write_disk(directory / "disk.raw", source)
        started = time.monotonic()
        try:
            result = site.publish(path, version, channel=f"of-{number}")
            kept.append((version, path.read_bytes()))
            with counts.lock:
                counts.published += 1
                counts.sent_bytes += result.uploaded_bytes
                counts.longest_publication_s = max(counts.longest_publication_s, time.monotonic() - started)
            if len(kept) > source.randrange(1, 4):
                gone = [kept.pop(0)[0] for _ in range(len(kept) - 1)]
                with site.signatory() as signatory:
                    changing.delete(signatory, "debian", gone, "a soak")
                with counts.lock:
                    counts.deleted_versions += len(gone)
        except Exception as error:  # noqa: BLE001  # told at the end, with all others
            with counts.lock:
                counts.errors.append(f"{version}: {type(error).__name__}: {error}")
    return kept


def collect_again_and_again(data, until, counts):
    while time.monotonic() < until:
        done = subprocess.run(
            [sys.executable, "-c", COLLECT, str(data)], capture_output=True, text=True, check=False, timeout=120
        )
        with counts.lock:
            if done.returncode:
                counts.errors.append(done.stderr[-500:])
                continue
            report = json.loads(done.stdout)
            counts.collections += 1
            counts.condemned += report["condemned"]["number"]
            counts.revived += report["revived"]["number"]
            counts.deleted += report["deleted"]["number"]
            counts.orphans += report["orphans"]["number"]
            if report["lost_count"] or report["damaged_count"]:
                counts.errors.append(f"lost {report['lost']}, damaged {report['damaged']}")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_publishers_and_collections_side_by_side_lose_nothing(site: Site, tmp_path):  # noqa: F811
    counts = Counts()
    until = time.monotonic() + SECONDS
    kept: dict[int, list] = {}

    def work(number):
        kept[number] = publish_and_delete(site, tmp_path / f"p{number}", number, until, counts)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(PUBLISHERS)]
    threads.append(threading.Thread(target=collect_again_and_again, args=(site.server.data, until, counts)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(counts)
    assert counts.errors == []
    index = site.index(tmp_path)
    expected = dict(version for each in kept.values() for version in each)
    assert {version.label for version in index.versions} == set(expected)
    for version in index.versions:
        assert site.disk(version.manifest) == expected[version.label]
    assert counts.published > SECONDS / 10
    assert counts.deleted > 0
    gone = index.deleted[0]
    with pytest.raises(UsageError, match="never used again"):
        index.with_version(ImageVersion(gone.label, gone.manifest, gone.date))
