"""Disks and users for the tests that boot guests."""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = "oscirc-test"


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory):
    """The small guest's disk by version and firmware, built once a session."""
    directory = tmp_path_factory.mktemp("small")

    def build(version: int = 1, firmware: str = "bios") -> Path:
        out = directory / f"{firmware}-{version}.raw"
        if not out.exists():
            command = [sys.executable, str(ROOT / "guests" / "small.py"), str(out)]
            subprocess.run([*command, "--version", str(version), "--firmware", firmware], check=True)
        return out

    return build


@pytest.fixture(scope="session")
def ordinary_user():
    """A user of this machine without any right of its own, and a Python with the product that it can run.

    The virtual environment of this checkout may stand where only root can go, so its packages are copied, and the
    product is taken from the source folders, as a stranger's machine would have it installed.
    """
    if os.geteuid() != 0:
        pytest.skip("making a user needs root; the other tests have run as an ordinary user already")
    home = Path("/var/tmp") / USER
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(["userdel", "-f", USER], check=False, capture_output=True)
    subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", USER], check=True)
    try:
        library = home / "lib"
        packages = Path(sysconfig.get_paths()["purelib"])
        shutil.copytree(
            packages,
            library,
            ignore=shutil.ignore_patterns("pip*", "setuptools*", "mypy*", "ruff*", "*.pth", "__pycache__"),
        )
        for room in ("blockstore", "remote", "publisher", "server", "fusedriver", "vmlaunch", "cli"):
            for package in (ROOT / room).glob("oscirc*"):
                shutil.copytree(package, library / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        interpreter = Path(sys.executable).resolve()
        reachable = subprocess.run(
            ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", str(interpreter), "-c", "0"],
            check=False,
            capture_output=True,
        )
        if reachable.returncode:
            pytest.skip(f"other users cannot run {interpreter}")
        account = pwd.getpwnam(USER)
        for path in (home, *home.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        fuse = Path("/dev/fuse")
        mode = fuse.stat().st_mode & 0o777
        fuse.chmod(0o666)  # as Debian and Ubuntu have it; a bare virtual machine may not
        prefix = ("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all")
        try:
            yield home, prefix, str(interpreter), {"PYTHONPATH": str(library)}
        finally:
            fuse.chmod(mode)
    finally:
        subprocess.run(["userdel", "-f", USER], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
