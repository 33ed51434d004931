"""Disks and users for the tests that boot guests."""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
USER_PREFIX = "oscirc-test-"
OWN_MOUNTS = """\
set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
mount --bind "$2" "$3"
echo made
exec cat
"""


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory):
    """The small guest's disk by version and firmware, built once a session, whichever worker needs it first."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent

    def build(version: int = 1, firmware: str = "bios") -> Path:
        out = directory / f"small-{firmware}-{version}.raw"
        with FileLock(directory / "small.lock"):
            if not out.exists():
                command = [sys.executable, str(ROOT / "guests" / "small.py"), str(out)]
                subprocess.run([*command, "--version", str(version), "--firmware", firmware], check=True)
        return out

    return build


@pytest.fixture(scope="module")
def ordinary_user():
    """A user of this machine without any right of its own, and a Python with the product that it can run.

    The virtual environment of this checkout may stand where only root can go, so its packages are shown in the user's
    home, and the product is copied from the source folders, as a stranger's machine would have it installed. Both this
    and a /dev/fuse that everybody may open, as Debian and Ubuntu have it, exist in a mount namespace of the user's own,
    which ends with the tests: the machine stays as it is, whatever happens to them.
    """
    if os.geteuid() != 0:
        pytest.skip("making a user needs root; the other tests have run as an ordinary user already")
    remove_users_left_behind()
    user = f"{USER_PREFIX}{os.getpid()}"
    home = Path("/var/tmp") / user
    subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", user], check=True)
    try:
        library, packages, device = (home / name for name in ("lib", "packages", "device"))
        for room in ("blockstore", "remote", "publisher", "server", "fusedriver", "vmlaunch", "cli"):
            for package in (ROOT / room).glob("oscirc*"):
                shutil.copytree(package, library / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        packages.mkdir()
        device.mkdir()
        subprocess.run(["chown", "-R", f"{user}:", str(home)], check=True)
        places = (device, sysconfig.get_paths()["purelib"], packages)
        namespace = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_MOUNTS, "sh", *map(str, places)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert namespace.stdout.readline() == b"made\n"
            entering = ("nsenter", f"--mount=/proc/{namespace.pid}/ns/mnt", "--")
            prefix = (*entering, "setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all")
            interpreter = str(Path(sys.executable).resolve())
            environment = {"PYTHONPATH": f"{library}:{packages}"}
            program = [*prefix, interpreter, "-c", "import click, oscirc.__main__"]
            reached = subprocess.run(program, env=os.environ | environment, check=False, capture_output=True, text=True)
            if reached.returncode:
                pytest.skip(f"other users cannot run {interpreter} with these packages: {reached.stderr}")
            yield home, prefix, interpreter, environment
        finally:
            namespace.communicate()  # the end of its input ends it
    finally:
        remove_user(user)


def remove_user(user):
    subprocess.run(["userdel", "-f", user], check=False, capture_output=True)
    shutil.rmtree(Path("/var/tmp") / user, ignore_errors=True)


def remove_users_left_behind():
    """Those of test runs that were killed: their number is that of the process."""
    for account in pwd.getpwall():
        number = account.pw_name.removeprefix(USER_PREFIX)
        if number != account.pw_name and number.isdigit() and not Path("/proc", number).exists():
            remove_user(account.pw_name)
