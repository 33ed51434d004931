"""What all levels share: the support package on the path, and the isolation of one's own directories."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Properties say nothing of time, and a run finds what the run before found: chance is for another profile.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("everyday", UNTIMED, derandomize=True)
settings.register_profile("explore", UNTIMED, derandomize=False, max_examples=1000)
settings.load_profile("everyday")

# The guests' kernels are downloaded once and shared by all runs, whatever directories a test has for itself.
os.environ.setdefault("OSCIRC_GUESTS_CACHE", str(Path.home() / ".cache" / "oscirc-guests"))

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

# Started in the background of a script the tests would inherit that Ctrl-C is ignored, and so would what they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where several workers share the tests, the files that take long come first, so that none is left over at the end.
LONGEST_FIRST = ("vm", "fault", "fuse", "integration", "browser", "unit", "property")


def pytest_collection_modifyitems(config, items):
    if unstable := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]+", item.nodeid)]:
        raise pytest.UsageError(f"every worker would call these by another name; give them ids: {unstable}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST_FIRST.index(item.path.relative_to(TESTS).parts[0]))


@pytest.fixture(autouse=True)
def _own_directories(tmp_path_factory, monkeypatch):
    """No test reads or writes the developer's own keys, caches or remotes."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        directory = home / variable.lower()
        directory.mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(directory))
    for variable in ("OSCIRC_KEY_PASSPHRASE", "OSCIRC_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL for this process's tests; each makes databases of its own (`support.postgresql.Cluster`)."""
    from support.postgresql import cluster

    with cluster() as started:
        yield started


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 server for this process's tests; each makes buckets of its own (`support.s3.S3Server`)."""
    from support.s3 import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as started, pytest.MonkeyPatch.context() as environment:
        for name, value in started.environment.items():
            environment.setenv(name, value)
        yield started
