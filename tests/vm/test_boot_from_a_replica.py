"""A guest boots from a replica behind nginx, the server that it was published at being gone."""

import pytest
from support.commands import Workstation, add_publisher, free_port, initialise, serving
from support.nginx import nginx

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.vm, pytest.mark.timeout(800)]
BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")


def test_a_guest_boots_from_a_replica_of_a_server_that_is_gone(tmp_path, small_disk):
    publisher, station = Workstation(tmp_path / "publisher"), Workstation(tmp_path / "user")
    repository = initialise(publisher, tmp_path / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        publisher.json("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
        publisher.run("mirror", "sync", repository.url, tmp_path / "replica")
    port = free_port()
    with nginx(tmp_path / "replica" / "tree", tmp_path / "nginx", port):
        station.run("remote", "add", "test", f"http://127.0.0.1:{port}#{repository.url.partition('#')[2]}")
        station.run("boot", "test:alice/circuit", "--name", "one", *BOOT, timeout=200)
        status = station.json("status", "one")
        assert status["fetched_blocks"] > 100
        assert status["failed_reads"] == 0
        assert "circuit login:" in station.run("log", "one")
        station.run("stop", "one", timeout=120)
        station.run("rm", "one")
