"""Replicas in earnest: a real server as the source, real processes killed at any moment, nginx in front of the result."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from support.commands import free_port
from support.fault_server import FaultServer
from support.nginx import nginx
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import PASSPHRASE, Api, block, make_world

from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import TransportError
from oscirc_blockstore.frame import decode_verified, stated_size
from oscirc_remote.opening import open_source
from oscirc_remote.pull import pull
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver
from oscirc_server.clock import system_clock
from oscirc_server.running import run

TIMEOUT_S = 60
BLOCKS = 24


def oscirc(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "oscirc", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def read_whole(directory, line, reference):
    """How many blocks a workstation that knows nothing gets of a version, from one address alone."""
    remotes = Remotes(directory / "remotes")
    remotes.add("home", line)
    resolved = Resolver(remotes).resolve(reference)
    source = open_source([remotes.load("home").url], directory / "cache")
    try:
        return pull(resolved.manifest, source, patience_s=10).positions
    finally:
        source.close()


@contextlib.contextmanager
def serving(settings):
    """The real server in a thread; gives its base URL."""
    ready, stop, found = threading.Event(), threading.Event(), []
    thread = threading.Thread(
        target=run, args=(settings, lambda url: (found.append(url), ready.set())), kwargs={"stop": stop}
    )
    thread.start()
    try:
        assert ready.wait(TIMEOUT_S)
        yield found[0]
    finally:
        stop.set()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_a_replica_of_a_real_server_behind_nginx_outlives_it(tmp_path):
    world = make_world(tmp_path, system_clock)
    alice = world.add_publisher("alice")
    mirror = tmp_path / "mirror"
    with serving(world.settings) as url:
        line = f"{url}#sha256={world.made.root_digest}"
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            api = Api(http, world.made.admin_token)
            old = alice.build("debian", [block(str(n)) for n in range(BLOCKS)])
            assert api.publish(alice, "debian", "1", old).status_code == 200
            done = oscirc("mirror", "sync", line, mirror, "--json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["blocks"] == len(old.records)
            new = alice.build("debian", [block(str(n if n != 5 else "changed")) for n in range(BLOCKS)])
            assert api.publish(alice, "debian", "2", new).status_code == 200
            foreseen = json.loads(oscirc("mirror", "sync", line, mirror, "--dry-run", "--json").stdout)
            done = oscirc("mirror", "sync", line, mirror, "--json", "--prune")
            assert done.returncode == 0, done.stderr
            facts = json.loads(done.stdout)
            assert facts["blocks"] == foreseen["blocks"] == 2
            assert facts["pruned"]["removed"] == 0
    port = free_port()
    with nginx(mirror / "tree", tmp_path / "nginx", port):
        there = f"http://127.0.0.1:{port}#sha256={world.made.root_digest}"
        assert read_whole(tmp_path / "reader", there, "home:alice/debian@1") == BLOCKS
        assert read_whole(tmp_path / "reader", there, "home:alice/debian@2") == BLOCKS
        again = oscirc("mirror", "sync", there, tmp_path / "second")
        assert again.returncode == 0, again.stderr
    assert files(tmp_path / "second" / "tree", "blocks") == files(mirror / "tree", "blocks")


def files(tree, prefix):
    return {str(p.relative_to(tree)): p.read_bytes() for p in (tree / prefix).rglob("*") if p.is_file()}


def test_a_mirror_on_demand_of_a_real_server_as_a_process(tmp_path):
    world = make_world(tmp_path, system_clock)
    alice = world.add_publisher("alice")
    disk = alice.build("debian", [block(str(n)) for n in range(BLOCKS)])
    listen = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as held:
        upstream = contextlib.ExitStack()
        held.enter_context(upstream)
        url = upstream.enter_context(serving(world.settings))
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            assert Api(http, world.made.admin_token).publish(alice, "debian", "1", disk).status_code == 200
        line = f"{url}#sha256={world.made.root_digest}"
        command = ["mirror", "serve", line, "--data", str(tmp_path / "mirror"), "--listen", listen, "--fresh", "1"]
        process = held.enter_context(
            subprocess.Popen([sys.executable, "-m", "oscirc", *command], stdout=subprocess.PIPE, text=True)
        )
        held.callback(process.kill)
        assert process.stdout.readline() == f"listening on http://{listen}\n"
        there = f"http://{listen}#sha256={world.made.root_digest}"
        assert read_whole(tmp_path / "one", there, "home:alice/debian") == BLOCKS
        upstream.close()
        assert read_whole(tmp_path / "two", there, "home:alice/debian") == BLOCKS
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        process.stdout.close()


def consistent(tree, repository, directory):
    """Whatever stands there is right, and what the timestamp leads to is there."""
    for path in (tree / "blocks").rglob("*.zst"):
        frame = path.read_bytes()
        decode_verified(frame, stated_size(frame), parse_hex(path.stem))
    if (tree / "metadata" / "timestamp.json").exists():
        with FaultServer(tree) as server:
            assert read_whole(directory, repository.line(server.url), "home:alice/debian") == BLOCKS


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 8))])
def test_killed_at_any_moment_the_tree_can_be_served_and_the_next_run_goes_on(tmp_path, seed):
    chance = random.Random(seed)
    repository = RepositorySimulator()
    mirror = tmp_path / "mirror"
    killed = 0
    with FaultServer(repository.files) as server:
        line = repository.line(server.url)
        for release in range(3):
            content = b"".join(random.Random(f"{release}-{n}").randbytes(BLOCK_SIZE) for n in range(BLOCKS))
            repository.publish("alice", "debian", str(release), content)
            for attempt in range(2 if seed else 1):  # the everyday suite has less time
                server.forget()
                process = subprocess.Popen(
                    [sys.executable, "-m", "oscirc", "mirror", "sync", line, str(mirror), "--jobs", "3"],
                    stderr=subprocess.DEVNULL,
                )
                with contextlib.suppress(AssertionError):  # it may have had less to ask for than that
                    server.wait_until_asked("*", chance.randrange(1, BLOCKS + 10), timeout_s=5 if attempt else 20)
                os.kill(process.pid, signal.SIGKILL)
                killed += process.wait(TIMEOUT_S) == -signal.SIGKILL
                consistent(mirror / "tree", repository, tmp_path / f"reader-{release}-{attempt}")
            done = oscirc("mirror", "sync", line, mirror, "--json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["published"]
            consistent(mirror / "tree", repository, tmp_path / f"reader-{release}")
    assert killed >= (3 if seed else 1)
    tree = files(mirror / "tree", "")
    assert {p: r for p, r in tree.items() if p.startswith("blocks/")} == {
        p: r for p, r in repository.files.items() if p.startswith("blocks/")
    }


def test_a_lost_server_is_made_again_from_a_replica_and_goes_on_for_its_readers(tmp_path):
    """The machine is gone; its keys were kept, and a mirror."""
    world = make_world(tmp_path / "old", system_clock)
    alice = world.add_publisher("alice")
    disk = alice.build("debian", [block(str(n)) for n in range(BLOCKS)])
    with serving(world.settings) as url:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            assert Api(http, world.made.admin_token).publish(alice, "debian", "1", disk).status_code == 200
        line = f"{url}#sha256={world.made.root_digest}"
        assert oscirc("mirror", "sync", line, tmp_path / "mirror").returncode == 0
        assert read_whole(tmp_path / "reader", line, "home:alice/debian") == BLOCKS
    data = tmp_path / "new"
    (world.data / "keys").rename(tmp_path / "kept")
    data.mkdir()
    (tmp_path / "kept").rename(data / "keys")
    environment = {**os.environ, "OSCIRC_KEY_PASSPHRASE": PASSPHRASE}
    done = oscirc("serve", "import", tmp_path / "mirror", "--data", data, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["relation"], facts["taken_over"]) == ("new", {"alice": 1})
    from dataclasses import replace

    with serving(replace(world.settings, data_dir=data)) as url:
        there = f"{url}#sha256={world.made.root_digest}"
        assert read_whole(tmp_path / "another", there, "home:alice/debian") == BLOCKS
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            more = alice.build("debian", [block("more")])
            assert Api(http, facts["admin_token"]).publish(alice, "debian", "2", more).status_code == 200
        assert read_whole(tmp_path / "another", there, "home:alice/debian") == 1


def test_a_source_that_is_gone_ends_a_first_sync_with_the_network(tmp_path):
    repository = RepositorySimulator()
    with FaultServer(repository.files) as server:
        line = repository.line(server.url)
    assert oscirc("mirror", "sync", line, tmp_path / "m").returncode == TransportError.exit_code
