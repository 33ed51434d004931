import signal
import subprocess
from types import SimpleNamespace

import pytest

from oscirc import mount_facts
from oscirc_fusedriver.control_client import NoAnswerError
from oscirc_fusedriver.processes import ProcessIdentity


@pytest.fixture
def driver():
    """A process that stands for a driver; the record of its mount."""
    with subprocess.Popen(["sleep", "60"]) as process:
        record = SimpleNamespace(mountpoint="/mnt", remote="r", image="a/b", process=ProcessIdentity.of(process.pid))
        yield record, process
        process.kill()


@pytest.mark.parametrize("killed", [True, False])
def test_a_driver_that_does_not_answer_has_died_only_if_it_is_dying(driver, monkeypatch, killed):
    record, process = driver

    def running(_record):
        if killed:
            process.send_signal(signal.SIGKILL)
        raise NoAnswerError("refused")

    monkeypatch.setattr(mount_facts, "running", running)
    facts = mount_facts.of(record)
    assert facts["stale"] is killed
    assert ("error" in facts) is not killed
