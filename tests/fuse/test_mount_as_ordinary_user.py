"""The same for a user who is not root: fusermount3 mounts, unmounts and cleans up for him.

Root runs this; it gives an existing unprivileged user a place of his own, and, in a mount namespace that ends with
the test, a /dev/fuse that everybody may open, as distributions have it.
"""

import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import oscirc_blockstore
import oscirc_fusedriver
import oscirc_remote

PROGRAM = Path(__file__).parent / "ordinary_user.py"
NOBODY = 65534
IN_A_NAMESPACE = (
    'set -e; mknod -m 666 "$1/fuse" c 10 229; mount --bind "$1/fuse" /dev/fuse; shift; '
    f'exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all -- "$@"'
)


@pytest.fixture
def place():
    """A directory that others can reach; pytest's own is root's alone."""
    directory = Path(tempfile.mkdtemp(prefix="oscirc-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.root
def test_an_ordinary_user_mounts_and_unmounts(place, disk_file):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests have shown this for the user who runs them")
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    home, disk = place / "home", place / "disk.raw"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    shutil.copyfile(disk_file, disk)
    disk.chmod(0o644)
    program = place / "tests"
    program.mkdir()
    for file in (PROGRAM, PROGRAM.with_name("scripted_driver.py")):
        shutil.copyfile(file, program / file.name)
    rooms = [str(Path(room.__file__).parent.parent) for room in (oscirc_blockstore, oscirc_fusedriver, oscirc_remote)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PYTHONPATH": os.pathsep.join([*rooms, *site.getsitepackages()]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    as_user = ["unshare", "--mount", "--propagation", "private", "sh", "-c", IN_A_NAMESPACE, "sh", str(place)]
    interpreter = str(Path(sys.executable).resolve())
    imports = [*as_user, interpreter, "-c", "import pyfuse3, trio, oscirc_fusedriver.session"]
    done = subprocess.run(imports, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        pytest.skip(f"user {NOBODY} cannot run {interpreter} with these packages: {reason}")
    (place / "fuse").unlink()
    done = subprocess.run(
        [*as_user, interpreter, str(program / PROGRAM.name), str(home), str(disk), "/usr"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    seen = json.loads(done.stdout)
    assert "error" not in seen, seen
    assert seen["uid"] == NOBODY
    assert "ready" in seen["mounted"], seen["mounted"]
    assert seen["equal"] == hashlib.sha256(disk_file.read_bytes()).hexdigest()
    assert seen["status"]["driver"]["reads"] > 0
    assert seen["unmounted"] == "UNMOUNTED"
    assert seen["cleaned"] == "CLEANED"
    assert seen["left"] == []
    assert seen["foreign"]["failure"]["error"] in ("LocalError", "UsageError")
    if "ready" not in seen["allow_other"]:  # this machine's fuse.conf has no user_allow_other
        assert "user_allow_other" in seen["allow_other"]["failure"]["message"]
        assert "/etc/fuse.conf" in seen["allow_other"]["failure"]["hint"]
