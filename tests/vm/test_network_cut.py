"""The network is cut in mid-boot, as a pulled cable cuts it: the guest pauses, then reaches login, and saw no error."""

import pytest
from support.commands import Workstation, add_publisher, initialise, serving
from support.links import far_mirror

from .cut_guest import Guest

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.vm, pytest.mark.timeout(800)]


def test_the_small_guest_pauses_while_the_network_is_cut_and_then_reaches_login(tmp_path, small_disk):
    publisher = Workstation(tmp_path / "publisher")
    repository = initialise(publisher, tmp_path / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        publisher.run("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
    pin = repository.url.partition("#")[2]
    options = ("--deadline", "1", "--timeout", "150")
    with (
        far_mirror(repository.tree, megabits=20) as mirror,
        Guest(Workstation(tmp_path / "user"), mirror, pin, "alice/circuit", "circuit login:", *options) as guest,
    ):
        said = guest.cut_for(3, moved_bytes=3_000_000)
        assert (said["state"], said["paused_by"]) == ("paused", "network")
        assert said["network_gone_s"] > 0
        guest.reaches_login(150)
