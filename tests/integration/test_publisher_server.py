"""The publisher against the real server, each in a process of its own: released disks, interruptions, rotations."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from support.commands import free_port
from tuf.api.exceptions import RepositoryError
from tuf.ngclient import Updater, UpdaterConfig

from oscirc_blockstore import frame, image_index, keys, manifest, table
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import (
    NotFoundError,
    OscircError,
    RollbackError,
    ServerRefusedError,
    SignatureRefusedError,
    UsageError,
)
from oscirc_publisher import administration, changing
from oscirc_publisher.disks import open_disk
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory
from oscirc_publisher.rest import Patience, RestClient
from oscirc_publisher.signing import KeyRing
from oscirc_server.administration import Administration
from oscirc_server.initialising import initialise

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB
PASSPHRASE = "for tests"

SERVE = """
import sys
from pathlib import Path
from oscirc_server.running import run
from oscirc_server.settings import Listen, Settings
run(Settings(data_dir=Path(sys.argv[1]), listen=Listen.parse(sys.argv[2]), log_level="error"))
"""

PUBLISH = """
import json, sys
from pathlib import Path
from oscirc_publisher.disks import open_disk
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory
from oscirc_publisher.rest import RestClient
from oscirc_publisher.signing import KeyRing
url, token, directory, disk, version = sys.argv[1:]
source = open_disk(Path(disk))
with RestClient(url, token=token) as rest:
    signatory = Signatory(rest, "alice", KeyRing(Path(directory)).load("work", "for tests"))
    result = publish(source, signatory, "debian", version, block_size=65536, progress=lambda *report: print(*report, flush=True))
source.close()
print(json.dumps({"manifest": result.manifest.hex(), "new": result.new_blocks, "blocks": result.blocks}), flush=True)
"""


class Served:
    """A server process that can be killed and started again on its port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.address = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.data), self.address], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.split()[-1]
        self.address = self.url.removeprefix("http://")

    def end(self, signal_number: int = signal.SIGTERM) -> None:
        self.process.send_signal(signal_number)
        self.process.wait(30)
        self.process.stdout.close()


@dataclass
class Site:
    """A repository with a publisher: what one needs to publish to it and to read from it."""

    server: Served
    admin_token: str
    token: str
    ring: KeyRing
    root: bytes

    def client(self, token: str | None = None) -> RestClient:
        return RestClient(self.server.url, token=token or self.token, patience=Patience((0.1,) * 100))

    @contextlib.contextmanager
    def signatory(self, name="work", **options):
        with self.client() as rest:
            yield Signatory(rest, "alice", self.ring.load(name, PASSPHRASE), **options)

    def publish(self, path, version, **options):
        disk = open_disk(path)
        try:
            with self.signatory() as signatory:
                return publish(disk, signatory, "debian", version, block_size=BLOCK, **options)
        finally:
            disk.close()

    def get(self, path):
        return httpx.get(f"{self.server.url}/{path}").raise_for_status().content

    def index(self, tmp_path):
        """The image's index as a fresh client's TUF client finds it."""
        state = tmp_path / f"tuf-{random.random()}"
        (state / "targets").mkdir(parents=True)
        updater = Updater(
            metadata_dir=str(state),
            metadata_base_url=f"{self.server.url}/metadata/",
            target_dir=str(state / "targets"),
            target_base_url=f"{self.server.url}/targets/",
            config=UpdaterConfig(),
            bootstrap=self.root,
        )
        updater.refresh()
        facts = updater.get_targetinfo("alice/debian.json")
        if facts is None:
            return None
        return image_index.parse(Path(updater.download_target(facts)).read_bytes(), "alice", "debian")

    def disk(self, digest):
        """The whole disk, read block by block over HTTP and verified."""
        facts = manifest.parse_verified(self.get(f"manifests/{digest.hex()}.json"), digest)
        size = facts.geometry.block_size

        whole = bytearray(facts.geometry.block_count * size)
        with httpx.Client(base_url=self.server.url) as reader:

            def load(name, raw_size=table.NODE_SIZE):
                return frame.decode_verified(reader.get(block_path(name)).raise_for_status().content, raw_size, name)

            for position, block in table.iterate_blocks(facts.geometry, facts.root, load):
                whole[position * size : (position + 1) * size] = load(block, size)
        return bytes(whole[: facts.geometry.disk_size])


@pytest.fixture
def site(tmp_path):
    made = initialise(tmp_path / "data", tmp_path / "offline", PASSPHRASE, None, "test")
    ring = KeyRing(tmp_path / "keys")
    ring.create("work", PASSPHRASE)
    here = Administration(tmp_path / "data")
    here.add_publisher("alice", [ring.export("work")], tmp_path / "offline", PASSPHRASE)
    _, token = here.create_token(["publish:alice"], "work")
    server = Served(tmp_path / "data")
    root = httpx.get(f"{server.url}/roots/{made.root_digest}.json").raise_for_status().content
    assert digest_of(root).hex() == made.root_digest
    yield Site(server, made.admin_token, token, ring, root)
    server.end()


def write_disk(path, size=6 * MIB + 512, seed=1, hole=True):
    source = random.Random(seed)
    with path.open("wb") as file:
        file.write(source.randbytes(size // 3))
        if hole:
            file.seek(size // 2)
        file.write(b"text of a line\n" * 10_000)
        file.truncate(size)
        file.seek(size - 512)
        file.write(source.randbytes(512))
    return path


def test_a_released_disk_is_found_by_trust_and_reads_back_whole(site, tmp_path):
    path = write_disk(tmp_path / "one.raw")
    result = site.publish(path, "1", changelog="the first")
    index = site.index(tmp_path)
    assert index.channel("stable").manifest == result.manifest
    assert index.version("1").changelog == "the first"
    assert site.disk(result.manifest) == path.read_bytes()
    again = site.publish(path, "1")
    assert (again.changed, again.uploaded_bytes) == (False, 0)
    with pytest.raises(UsageError, match="another disk"):
        site.publish(write_disk(tmp_path / "two.raw", seed=2), "1")


def test_a_qcow2_is_the_same_disk_and_sends_nothing_new(site, tmp_path):
    path = write_disk(tmp_path / "one.raw")
    container = tmp_path / "one.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(path), str(container)], check=True)
    first = site.publish(path, "1")
    second = site.publish(container, "2")
    assert second.manifest == first.manifest
    assert (second.new_blocks, second.new_nodes, second.uploaded_bytes) == (0, 0, 0)
    assert site.index(tmp_path).channels == {"stable": "2"}


def test_a_changed_disk_sends_what_changed(site, tmp_path):
    path = write_disk(tmp_path / "one.raw", size=90 * MIB, hole=False)
    first = site.publish(path, "1")
    with path.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"changed")
    second = site.publish(path, "2")
    assert (second.new_blocks, second.new_nodes) == (1, 2)
    assert second.uploaded_bytes < 2 * (BLOCK + table.NODE_SIZE)
    assert first.manifest != second.manifest
    assert site.disk(second.manifest) == path.read_bytes()


def test_channels_yanks_and_signing_again(site, tmp_path):
    path = write_disk(tmp_path / "one.raw")
    site.publish(path, "1")
    site.publish(path, "2", channel="testing")
    with site.signatory() as signatory:
        assert changing.set_channel(signatory, "debian", "stable", "2").changed
        assert changing.yank(signatory, "debian", "1", "a hole", security=True).changed
        assert changing.resign(signatory) == 5
    index = site.index(tmp_path)
    assert index.channels == {"stable": "2", "testing": "2"}
    assert index.version("1").yanked.why == "a hole"


def start_publishing(site, path, version):
    arguments = [site.server.url, site.token, str(site.ring.directory), str(path), version]
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_upload(process):
    """Until some of the disk has been sent, and not all."""
    for line in process.stdout:
        phase, done, total, uploaded = line.split()
        if phase == "uploading" and int(uploaded) > 0:
            assert int(done) < int(total)
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_publication_goes_on_where_it_was(site, tmp_path, how):
    path = write_disk(tmp_path / "one.raw", size=300 * MIB)
    with start_publishing(site, path, "1") as process:
        wait_for_upload(process)
        process.send_signal(how)
        _, words = process.communicate(timeout=60)
        assert process.returncode == -how, words
    with pytest.raises(RepositoryError, match="not part of snapshot"):  # nothing was released, not even a role
        site.index(tmp_path)
    # rows: the files of a broken body stand before its rows do
    before = Administration(site.server.data).status().blocks
    assert before
    result = site.publish(path, "1")
    assert result.new_blocks + result.new_nodes <= result.blocks + result.nodes - before
    assert site.index(tmp_path).channel("stable").manifest == result.manifest
    assert Administration(site.server.data).status().open_drafts == 0


def test_a_server_that_is_killed_and_comes_back_is_waited_for(site, tmp_path):
    path = write_disk(tmp_path / "one.raw", size=300 * MIB)
    with start_publishing(site, path, "1") as process:
        wait_for_upload(process)
        site.server.end(signal.SIGKILL)
        site.server.start()
        out, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
    result = json.loads(out.splitlines()[-1])
    assert site.index(tmp_path).channel("stable").manifest.hex() == result["manifest"]
    again = site.publish(path, "2")
    assert (again.manifest.hex(), again.new_blocks) == (result["manifest"], 0)


def test_releases_at_the_same_moment_all_stand(site, tmp_path):
    labels = [f"v{number}" for number in range(6)]
    paths = [write_disk(tmp_path / f"{label}.raw", size=MIB, seed=at) for at, label in enumerate(labels)]
    failures = []
    together = threading.Barrier(len(labels))

    def release(path, label):
        together.wait()
        try:
            site.publish(path, label, channel=label)
        except OscircError as error:
            failures.append(error)

    threads = [threading.Thread(target=release, args=pair) for pair in zip(paths, labels, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    index = site.index(tmp_path)
    assert {version.label for version in index.versions} == set(labels)
    assert index.channels == {label: label for label in labels}


def test_publishers_are_added_rotated_and_removed_from_afar(site, tmp_path):
    """The targets key signs on the administrator's machine; the server only checks."""
    targets_key = keys.load_private((tmp_path / "offline" / "targets.pem").read_bytes(), PASSPHRASE, "the targets key")
    now = datetime.now(UTC)
    path = write_disk(tmp_path / "one.raw")
    site.publish(path, "1")
    site.ring.create("new", PASSPHRASE)
    bob = site.ring.create("bob", PASSPHRASE)
    new_public = keys.load_public(site.ring.export("new"), "it")
    with site.client(site.admin_token) as rest:
        current = administration.fetch_targets(rest)
        added = administration.change_targets(current, [targets_key], now, administration.adding("bob", [bob.public]))
        administration.put_targets(rest, added)
        administration.put_targets(rest, added)  # the very same again
        assert administration.publishers(administration.fetch_targets(rest), targets_key.public_key()) == [
            "alice",
            "bob",
        ]
        rotated = administration.change_targets(
            administration.fetch_targets(rest), [targets_key], now, administration.rotating("alice", [new_public])
        )
        administration.put_targets(rest, rotated)
    with site.signatory() as signatory, pytest.raises(SignatureRefusedError, match="another key"):
        changing.resign(signatory)
    old_public = keys.load_public(site.ring.export("work"), "it")
    with site.signatory("new", also_trusted=(old_public,)) as signatory:
        changing.resign(signatory)
    assert site.index(tmp_path).channels == {"stable": "1"}
    with site.client(site.admin_token) as rest:
        removed = administration.change_targets(
            administration.fetch_targets(rest), [targets_key], now, administration.removing("alice")
        )
        administration.put_targets(rest, removed)
    with contextlib.suppress(RepositoryError):
        assert site.index(tmp_path) is None
    with site.signatory("new") as signatory, pytest.raises(NotFoundError):
        changing.resign(signatory)


def test_a_token_of_another_publisher_and_none_are_refused(site, tmp_path):
    disk = open_disk(write_disk(tmp_path / "one.raw"))
    here = Administration(site.server.data)
    _, foreign = here.create_token(["publish:bob"], "other")
    for token in (foreign, "oscirc_unknown"):
        with site.client(token) as rest, pytest.raises(ServerRefusedError) as caught:
            publish(disk, Signatory(rest, "alice", site.ring.load("work", PASSPHRASE)), "debian", "1")
        assert caught.value.status in (401, 403)
    disk.close()
    assert here.status().blocks == 0


def test_a_server_restored_from_an_older_copy_is_noticed(site, tmp_path):
    """What the publisher signed is known on the publisher's side: a server that lost it is not signed over."""
    path = write_disk(tmp_path / "one.raw")
    site.publish(path, "1")
    key = site.ring.load("work", PASSPHRASE)
    key.remember(site.server.url, "alice", 2)  # signed and accepted, says the memory
    with site.signatory() as signatory, pytest.raises(RollbackError):
        changing.resign(signatory)
