import asyncio
import time

import pytest

from oscirc_blockstore.errors import DeadlineExceededError, LocalError, MissingProgramError, UsageError
from oscirc_vmlaunch import programs


def test_missing_programs_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_QEMU_PLACES", {"x86_64": ("qemu-system-x86_64",)})
    with pytest.raises(MissingProgramError) as qemu:
        programs.find_qemu("x86_64")
    assert "qemu-system-x86" in qemu.value.hint
    with pytest.raises(MissingProgramError) as qemu_img:
        programs.find_qemu_img()
    assert "qemu-utils" in qemu_img.value.hint


def test_an_architecture_that_cannot_be_started_is_refused():
    with pytest.raises(UsageError, match="pdp11"):
        programs.find_qemu("pdp11")


def test_a_program_is_killed_at_its_deadline():
    begun = time.monotonic()
    outcome = asyncio.run(programs.run(["sh", "-c", "echo begun; exec sleep 60"], deadline_s=0.2))
    assert outcome.returncode is None
    assert time.monotonic() - begun < 10
    with pytest.raises(DeadlineExceededError, match="sleep"):
        asyncio.run(programs.run_checked(["sleep", "60"], deadline_s=0.05))


def test_a_failing_program_is_quoted():
    with pytest.raises(LocalError, match="no such luck"):
        asyncio.run(programs.run_checked(["sh", "-c", "echo no such luck >&2; exit 3"], deadline_s=10))


def test_what_is_no_qemu_has_no_version(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(LocalError, match="hello"):
        asyncio.run(programs.qemu_version(program))
