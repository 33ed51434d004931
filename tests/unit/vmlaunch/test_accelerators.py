import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest
from support import machine_time

from oscirc_vmlaunch import accelerators
from oscirc_vmlaunch.accelerators import Answer, Choice, choose, probe
from oscirc_vmlaunch.programs import find_qemu

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed (qemu-system-x86)"
)


@pytest.fixture
def probes(monkeypatch, tmp_path):
    """Probing replaced by a list of answers, on a machine where KVM can be opened; the list of the probes made."""
    made = []
    monkeypatch.setattr(accelerators, "_KVM", tmp_path)

    async def version(qemu):
        return "9.9"

    monkeypatch.setattr(accelerators.programs, "qemu_version", version)

    def answer(value):
        async def fake(qemu, accelerator, *, deadline_s):
            made.append((accelerator, deadline_s))
            return value

        monkeypatch.setattr(accelerators, "probe", fake)
        return made

    return answer


def decide(request="auto", **options):
    return asyncio.run(choose(request, qemu=Path("/usr/bin/qemu-system-x86_64"), **options))


@needs_qemu
def test_the_probe_guest_reaches_64_bit_mode_under_emulation():
    begun = time.monotonic()
    answer = asyncio.run(probe(find_qemu("x86_64"), "tcg", deadline_s=20))
    assert answer.works, answer.reason
    assert time.monotonic() - begun < 20


@needs_qemu
def test_on_this_machine_the_answer_about_kvm_comes_in_five_seconds():
    begun = machine_time.clock()
    choice = asyncio.run(choose("auto", qemu=find_qemu("x86_64")))
    assert machine_time.clock() - begun < 5
    assert choice.reason


@needs_qemu
def test_a_guest_that_hangs_is_given_up_at_the_deadline(monkeypatch):
    monkeypatch.setattr(accelerators, "_PROBE_CODE", bytes.fromhex("fa f4 ebfd"))  # cli; stop: hlt; jmp stop
    answer = asyncio.run(probe(find_qemu("x86_64"), "tcg", deadline_s=1))
    assert answer == Answer(works=False, reason="a 64-bit probe guest gave no sign of life in 1 s")


@needs_qemu
def test_a_guest_that_only_resets_has_proved_nothing(monkeypatch):
    monkeypatch.setattr(accelerators, "_PROBE_CODE", bytes.fromhex("b0fe e664 f4 ebfd"))  # reset, without the word
    assert not asyncio.run(probe(find_qemu("x86_64"), "tcg", deadline_s=20)).works


def test_a_qemu_that_dies_is_quoted(tmp_path):
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\necho kvm is broken here >&2\nexit 1\n")
    qemu.chmod(0o755)
    answer = asyncio.run(probe(qemu, "kvm", deadline_s=10))
    assert not answer.works
    assert "kvm is broken here" in answer.reason


@pytest.mark.parametrize("request_", ["kvm", "tcg"])
def test_a_demand_is_honoured_without_a_probe(probes, request_):
    made = probes(Answer(works=False, reason="never asked"))
    assert decide(request_) == Choice(request_, "as asked for")
    assert made == []


def test_kvm_is_taken_when_the_probe_succeeds_and_the_answer_is_remembered(probes):
    made = probes(Answer(works=True, reason="it ran"))
    assert decide() == Choice("kvm", "it ran")
    assert decide(clock=lambda: time.time() + 10 * 365 * 24 * 3600) == Choice("kvm", "it ran")
    assert len(made) == 1
    assert accelerators.cache_file().parent.name == "oscirc"


def test_a_bad_answer_is_shown_and_asked_again_after_a_day(probes):
    made = probes(Answer(works=False, reason="it hung"))
    for _ in range(2):
        choice = decide(clock=lambda: 1000.0)
        assert choice.accelerator == "tcg"
        assert "it hung" in choice.reason
    assert len(made) == 1
    decide(clock=lambda: 1000.0 + 25 * 3600)
    assert len(made) == 2
    decide(clock=lambda: 0.0)  # a clock that went back proves nothing
    assert len(made) == 3


def test_another_qemu_is_another_question(probes, monkeypatch):
    made = probes(Answer(works=True, reason="it ran"))
    decide()

    async def version(qemu):
        return "10.0"

    monkeypatch.setattr(accelerators.programs, "qemu_version", version)
    decide()
    assert len(made) == 2
    assert len(json.loads(accelerators.cache_file().read_text())) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_a_damaged_memory_is_no_memory(probes, content):
    made = probes(Answer(works=True, reason="it ran"))
    accelerators.cache_file().parent.mkdir(parents=True)
    accelerators.cache_file().write_text(content)
    decide()
    decide()
    assert len(made) == 1


def test_a_memory_that_cannot_be_written_costs_probes_only(probes, tmp_path):
    made = probes(Answer(works=True, reason="it ran"))
    file = tmp_path / "file"
    file.touch()
    for _ in range(2):
        assert decide(remembered=file / "below").accelerator == "kvm"
    assert len(made) == 2


def test_the_memory_stays_small(probes, tmp_path):
    answer = Answer(works=True, reason="it ran")
    for number in range(100):
        accelerators._remember(tmp_path / "memory", f"machine {number}", answer, now=1.0)
    assert len(json.loads((tmp_path / "memory").read_text())) == 16
    assert accelerators._recall(tmp_path / "memory", "machine 99", now=2.0) == answer


def test_without_the_device_or_the_permission_the_reason_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerators, "_KVM", tmp_path / "none")
    assert "does not exist" in decide().reason
    monkeypatch.setattr(accelerators, "_KVM", tmp_path)
    monkeypatch.setattr(accelerators.os, "access", lambda *_: False)
    assert "group kvm" in decide().reason


def test_code_that_does_not_fit_a_boot_sector_is_refused():
    assert len(accelerators.boot_sector(b"\x90" * 510)) == 512
    with pytest.raises(ValueError, match="511"):
        accelerators.boot_sector(b"\x90" * 511)
