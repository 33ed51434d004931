"""Merging recorded boots: every run counts, one that is not whole or fails is named, and nothing is left of them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from oscirc import recording, recording_leftovers, recording_progress
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DeadlineExceededError, LocalError
from oscirc_blockstore.manifest import SystemFacts
from oscirc_blockstore.png_making import Picture
from oscirc_blockstore.trace import END_LINE, TraceHead
from oscirc_vmlaunch import console, launching, screendumps
from oscirc_vmlaunch.instances import Instances

DISK = digest_of(b"disk")
BLOCK = 65_536


@pytest.fixture
def screens():
    """What each scripted boot was to show its display to."""
    return []


@pytest.fixture
def boots(monkeypatch, screens):
    """Boots that read what was scripted instead of running; `ran` holds their machines and traces."""
    script, ran = [], []

    def run(_prepare, _system, _mountpoint, file, memory, cpus, _options, screen, _watch):
        ran.append((memory, cpus, file))
        screens.append(screen)
        what = script[len(ran) - 1]
        if isinstance(what, BaseException):
            raise what
        positions, end = what
        lines = [f"{position * BLOCK} 512 0\n" for position in positions]
        file.write_text("".join([str(TraceHead(100 * BLOCK, DISK)), *lines, end]))

    monkeypatch.setattr(recording, "_run", run)
    return script, ran


def recorded(minimum_memory_mib=512, screen=None, **options):
    system = SystemFacts(minimum_memory_mib=minimum_memory_mib)
    return recording.record(None, system, DISK, BLOCK, recording.RecordingOptions(**options), screen)


def nothing_left(ran):
    return not any(file.parent.exists() for *_, file in ran)


def test_runs_on_different_machines_are_merged(boots, capsys):
    script, ran = boots
    script += [((5, 3, 1, 5), END_LINE), ((5, 1, 7), END_LINE)]
    profile = recorded(name="desktop")
    assert (profile.name, profile.runs, profile.manifest) == ("desktop", 2, DISK)
    assert profile.positions[0] == 5
    assert set(profile.positions) == {5, 3, 1, 7}
    assert len({machine[:2] for machine in ran}) == 2
    assert nothing_left(ran)
    said = capsys.readouterr().err
    assert "run 1 of 2" in said
    assert "run 2 of 2" in said


def test_machines_have_what_the_system_needs_and_what_was_asked_for(boots):
    script, ran = boots
    script += [((1,), END_LINE)] * 6
    recorded(runs=2, minimum_memory_mib=4096)
    recorded(runs=4, memory_mib=700, cpus=3)
    assert [machine[0] for machine in ran[:2]] == [4096, 4096]
    assert {machine[:2] for machine in ran[2:]} == {(700, 3)}


@pytest.mark.parametrize("end", ["", "0 4", "end"])
def test_a_recording_that_was_cut_off_is_never_merged(boots, end):
    script, ran = boots
    script += [((5, 3), END_LINE), ((5,), end)]
    with pytest.raises(LocalError, match="run 2 is not whole"):
        recorded()
    assert nothing_left(ran)


def test_a_run_that_fails_is_named_with_its_machine_and_its_hint_is_kept(boots):
    script, ran = boots
    script += [((5,), END_LINE), DeadlineExceededError("no prompt", hint="look at its console"), ((5,), END_LINE)]
    with pytest.raises(DeadlineExceededError, match=r"run 2 \(2048 MiB, 1 processors\): no prompt") as failed:
        recorded(runs=3)
    assert failed.value.hint == "look at its console"
    assert len(ran) == 2
    assert nothing_left(ran)


def test_an_interrupt_ends_it_and_leaves_nothing(boots):
    script, ran = boots
    script += [((5,), END_LINE), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        recorded(runs=3)
    assert len(ran) == 2
    assert nothing_left(ran)


def test_traces_can_be_kept(boots, tmp_path):
    script, _ = boots
    script += [((5,), END_LINE), ((6,), END_LINE)]
    recorded(keep_traces=tmp_path / "kept")
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept == ["boot-1024m-2c-1.trace", "boot-2048m-1c-2.trace"]


def test_where_traces_cannot_be_kept_that_is_said(boots, tmp_path):
    script, ran = boots
    script += [((5,), END_LINE)] * 2
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot make the directory"):
        recorded(keep_traces=tmp_path / "file")
    assert ran == []  # before the first boot


def test_a_trace_that_cannot_be_kept_any_more_does_not_cost_the_recording(boots, tmp_path, capsys, monkeypatch):
    script, _ = boots
    script.append(((5,), END_LINE))

    def full(_source, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.shutil, "copyfile", full)
    assert recorded(runs=1, keep_traces=tmp_path / "kept").positions == (5,)
    assert "could not be kept" in capsys.readouterr().err


def test_what_was_touched_and_the_console_s_last_line_are_shown_while_the_prompt_is_waited_for(monkeypatch, tmp_path):
    shown = asyncio.Event()
    said = []

    class Bar:
        def update(self, count):
            said.append(count)

        def set_postfix_str(self, text, refresh):
            said.append(text)
            shown.set()

    async def start(instance, _disk, **_how):
        instance.console_log.write_bytes(b"\x1b[2JLoading Linux\r\n")
        return SimpleNamespace(alive=lambda: True)

    async def wait_for_text(_log, _pattern, **_how):
        await shown.wait()

    async def stop(_instance, *, timeout_s):
        pass

    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(console, "wait_for_text", wait_for_text)
    monkeypatch.setattr(launching, "stop", stop)
    file = tmp_path / "trace"
    file.write_text(f"{TraceHead(100 * BLOCK, DISK)}0 512 0\n{3 * BLOCK} 512 1\n")
    watch = recording.Watch(Bar(), recording_progress.Touched(file, BLOCK))
    options = recording.RecordingOptions(settle_s=0)
    asyncio.run(recording._boot(Path("/disk"), DISK.hex(), SystemFacts(), 512, 1, options, None, watch))
    assert said[:2] == [2 * BLOCK, "Loading Linux"]


def test_a_recording_begins_with_what_dead_ones_left(boots, monkeypatch):
    script, ran = boots
    script.append(((5,), END_LINE))
    swept = []
    monkeypatch.setattr(recording_leftovers, "sweep", lambda: swept.append(len(ran)))
    recorded(runs=1)
    assert swept == [0]


@pytest.mark.parametrize("failure", [None, DeadlineExceededError("no prompt"), KeyboardInterrupt()])
def test_a_guest_that_was_started_is_stopped_and_forgotten_whatever_happens(monkeypatch, tmp_path, failure):
    stopped = []

    async def start(instance, disk, *, manifest_digest, graphics, **_):
        assert (disk, manifest_digest, graphics) == (Path("/disk"), DISK.hex(), False)

        class Machine:
            alive = staticmethod(lambda: True)

        return Machine()

    async def wait_for_text(log, pattern, **_how):
        log.write_text("Loading Linux\nKernel panic")
        if failure is not None:
            raise failure

    async def stop(instance, *, timeout_s):
        stopped.append(instance.name)

    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(console, "wait_for_text", wait_for_text)
    monkeypatch.setattr(launching, "stop", stop)

    async def boot():
        options = recording.RecordingOptions(settle_s=0)
        await recording._boot(Path("/disk"), DISK.hex(), SystemFacts(), 512, 1, options, None)

    if failure is None:
        asyncio.run(boot())
    else:
        with pytest.raises(type(failure)) as raised:
            asyncio.run(boot())
        if isinstance(failure, DeadlineExceededError):
            assert "Kernel panic" in raised.value.hint
    assert len(stopped) == 1
    assert list(Instances().load_all()) == []


def test_only_the_last_run_is_looked_at(boots, screens):
    script, _ = boots
    script += [((5,), END_LINE)] * 3
    recorded(runs=2, screen=print)
    assert screens == [None, print]
    recorded(runs=1)
    assert screens[2:] == [None]


@pytest.mark.parametrize("failure", [None, LocalError("QEMU refused screendump")])
def test_a_display_is_shown_after_the_prompt_and_one_that_cannot_be_had_is_a_warning(monkeypatch, capsys, failure):
    happened, picture = [], Picture(1, 1, bytes(3))

    async def start(instance, disk, *, manifest_digest, graphics, **_):
        happened.append(f"start, graphics {graphics}")
        return SimpleNamespace(alive=lambda: True)

    async def wait_for_text(_log, _pattern, **_how):
        happened.append("prompt")

    async def take(_machine):
        happened.append("look")
        if failure is not None:
            raise failure
        return picture

    async def stop(_instance, *, timeout_s):
        happened.append("stop")

    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(console, "wait_for_text", wait_for_text)
    monkeypatch.setattr(screendumps, "take", take)
    monkeypatch.setattr(launching, "stop", stop)
    seen = []
    options = recording.RecordingOptions(settle_s=0)
    asyncio.run(recording._boot(Path("/disk"), DISK.hex(), SystemFacts(), 512, 1, options, seen.append))
    assert happened == ["start, graphics True", "prompt", "look", "stop"]
    assert seen == ([picture] if failure is None else [])
    assert ("no screenshot: QEMU refused" in capsys.readouterr().err) is (failure is not None)
