"""The units: systemd takes them, they are closed off from the machine, and what they start exists."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from . import invocations
from .test_compose import environment_file

UNITS = Path(__file__).resolve().parents[3] / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
OPTIONS = {"ids": lambda path: path.name}
MOST_EXPOSED = 2.0


def program(*words):
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} here")
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.[st]*[er]*")), **OPTIONS)
def test_systemd_has_nothing_to_say_but_that_the_program_is_not_installed_here(unit):
    if unit.suffix not in (".service", ".timer"):
        return
    said = program("systemd-analyze", "verify", unit).stderr.splitlines()
    assert not [line for line in said if "/opt/oscirc/bin/oscirc is not executable" not in line], said


@pytest.mark.parametrize("unit", SERVICES, **OPTIONS)
def test_a_service_is_closed_off_from_the_machine(unit):
    said = program("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert float(exposure[1]) <= MOST_EXPOSED, said.stdout


@pytest.mark.parametrize("unit", SERVICES, **OPTIONS)
def test_what_a_service_starts_is_a_command(unit):
    (line,) = re.findall(r"^ExecStart=(.*)", unit.read_text(), re.MULTILINE)
    invocations.check(shlex.split(line)[1:])
    assert "User=oscirc" in unit.read_text()


def test_a_stop_is_given_the_time_that_the_server_gives_its_requests():
    text = (UNITS / "oscirc.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", text)[1]) > int(re.search(r"--stop-within (\d+)", text)[1])


def test_the_environment_names_what_the_options_read():
    given = environment_file("deploy/systemd/oscirc.env")
    for name, value in environment_file("deploy/compose.env").items():
        assert name in given or name in ("TMPDIR", "OSCIRC_DATABASE", "OSCIRC_BLOCKS", "AWS_SHARED_CREDENTIALS_FILE"), (
            value
        )
    front = (UNITS.parent / "nginx" / "machine" / "http.conf").read_text()
    assert f"server {given['OSCIRC_LISTEN']} " in front
    assert f"root {given['OSCIRC_DATA']}/tree;" in (UNITS.parent / "nginx" / "machine" / "site.conf").read_text()
