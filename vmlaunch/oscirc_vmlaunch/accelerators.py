"""Chooses between KVM and emulation, and proves KVM with a guest before trusting it.

A `/dev/kvm` that opens promises little: under some hypervisors QEMU aborts on it, or guests run in real mode and hang
once they are in long mode. So `auto` first runs a probe guest: a boot sector that enters 64-bit mode, counts, takes
an exception, writes a word to the serial port and resets, all in a fraction of a second on hardware. (Counting and the
exception are there because a KVM was met that passed without them, after 4 s, and hung Linux.) Only the word counts;
an abort, a reboot or the deadline mean emulation. No device of the probe is missing in any distribution's QEMU.

The answer is remembered in the cache folder by kernel release, QEMU version and CPU model: a good one for ever, a bad
one for a day (a busy machine may miss the deadline). `--accel kvm` and `--accel tcg` are honoured without a probe.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oscirc_remote.paths import cache_directory
from oscirc_vmlaunch import programs
from oscirc_vmlaunch.machine import CPU_MODELS, SANDBOX, Accelerator

Request = Literal["auto", "kvm", "tcg"]

PROBE_DEADLINE_S = 3.0
PROBE_WORD = "oscirc64"
_KVM = Path("/dev/kvm")
_BAD_ANSWER_LASTS_S = 24 * 3600
_CACHE_LIMIT_BYTES = 64 * 1024
_CACHE_LIMIT_ENTRIES = 16
_PROBE_DISK_BYTES = 1024 * 1024
_BOOT_SIGNATURE = b"\x55\xaa"
_SECTOR_BYTES = 512

_PROBE_CODE = bytes.fromhex(
    # Real mode, at 0x7c00: zero 0x1000 to 0x4fff, then one 2 MiB page at address 0 by way of three tables.
    "fa fc 31c0 8ed8 8ec0"  # cli; cld; xor ax, ax; mov ds, ax; mov es, ax
    "bf0010 b90020 f3ab"  # mov di, 0x1000; mov cx, 0x2000; rep stosw
    "c70600100320"  # mov word ptr [0x1000], 0x2003        PML4 -> PDPT, present and writable
    "c70600200330"  # mov word ptr [0x2000], 0x3003        PDPT -> page directory
    "c70600308300"  # mov word ptr [0x3000], 0x0083        page directory -> 2 MiB at 0
    "66b800100000 0f22d8"  # mov eax, 0x1000; mov cr3, eax
    "0f20e0 0c20 0f22e0"  # mov eax, cr4; or al, 0x20; mov cr4, eax              PAE
    "66b9800000c0 0f32 80cc01 0f30"  # mov ecx, 0xc0000080; rdmsr; or ah, 1; wrmsr     EFER.LME
    "0f0116c37c 0f011ec97c"  # lgdt [0x7cc3]; lidt [0x7cc9]
    "0f20c0 660d01000080 0f22c0"  # mov eax, cr0; or eax, 0x80000001; mov cr0, eax     PE, PG
    "ea5b7c0800"  # jmp 0x08:0x7c5b
    # Long mode: a stack, and gate 3 of the interrupt table at 0x4000 leads to 0x7c87.
    "b810000000 8ed0 bc007c0000"  # mov eax, 0x10; mov ss, eax; mov esp, 0x7c00
    "66c7042530400000877c"  # mov word ptr [0x4030], 0x7c87
    "c70425324000000800008e"  # mov dword ptr [0x4032], 0x8e000008
    "b900000001 ffc9 75fc"  # mov ecx, 0x1000000; again: dec ecx; jnz again
    "cc f4"  # int3; hlt
    # The handler writes the word, from one 64-bit register, to the serial port and resets the machine.
    "48b86f73636972633634"  # mov rax, 'oscirc64'
    "baf8030000 b908000000"  # mov edx, 0x3f8; mov ecx, 8
    "ee 48c1e808 ffc9 75f7"  # next: out dx, al; shr rax, 8; dec ecx; jnz next
    "b0fe e664 f4 ebfd"  # mov al, 0xfe; out 0x64, al; stop: hlt; jmp stop
    # At 0x7cab: descriptors (null, 64-bit code, data), the GDT's and the IDT's limit and address.
    "0000000000000000 00000000009a2000 0000000000920000"
    "1700 ab7c0000 ff0f 00400000"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What will run the guest, and why, in words for the user."""

    accelerator: Accelerator
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found."""

    works: bool
    reason: str


def cache_file() -> Path:
    """Where answers are remembered; removing it makes the next start probe again."""
    return cache_directory() / "accelerators.json"


async def choose(
    request: Request,
    *,
    qemu: Path,
    remembered: Path | None = None,
    probe_deadline_s: float = PROBE_DEADLINE_S,
    clock: Callable[[], float] = time.time,
) -> Choice:
    """Honour `kvm` and `tcg`; for `auto` take KVM only where it is known, or now found, to run 64-bit guests."""
    if request != "auto":
        return Choice(request, "as asked for")
    if obstacle := _obstacle():
        return Choice("tcg", obstacle)
    file = cache_file() if remembered is None else remembered
    key = f"Linux {platform.release()}, QEMU {await programs.qemu_version(qemu)}, {_cpu_model()}"
    answer = _recall(file, key, now=clock())
    if answer is None:
        answer = await probe(qemu, "kvm", deadline_s=probe_deadline_s)
        _remember(file, key, answer, now=clock())
    if answer.works:
        return Choice("kvm", answer.reason)
    return Choice("tcg", f"KVM is there but unusable: {answer.reason}")


async def probe(qemu: Path, accelerator: Accelerator, *, deadline_s: float = PROBE_DEADLINE_S) -> Answer:
    """Run the probe guest, at most `deadline_s` seconds, on the accelerator and CPU model that a guest would get."""
    with tempfile.TemporaryDirectory(prefix="oscirc-probe-") as folder:
        disk = Path(folder) / "probe.raw"
        with disk.open("wb") as file:
            file.write(boot_sector(_PROBE_CODE))
            file.truncate(_PROBE_DISK_BYTES)
        node = {"driver": "file", "node-name": "probe", "filename": str(disk), "read-only": True}
        argv = [
            *(str(qemu), "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-sandbox", SANDBOX),
            *("-machine", "q35", "-accel", accelerator, "-cpu", CPU_MODELS[accelerator], "-m", "16M"),
            *("-serial", "stdio", "-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=probe"),
        ]
        outcome = await programs.run(argv, deadline_s=deadline_s)
    if PROBE_WORD in outcome.output:
        return Answer(works=True, reason="a 64-bit probe guest ran")
    if outcome.returncode is None:
        return Answer(works=False, reason=f"a 64-bit probe guest gave no sign of life in {deadline_s:g} s")
    words = outcome.output.strip().splitlines()
    last = words[-1] if words else f"exit status {outcome.returncode}"
    return Answer(works=False, reason=f"QEMU could not run a 64-bit probe guest ({last})")


def boot_sector(code: bytes) -> bytes:
    """Machine code as the 512 bytes that a BIOS loads at 0x7c00 and jumps to."""
    if len(code) > _SECTOR_BYTES - len(_BOOT_SIGNATURE):
        raise ValueError(f"{len(code)} bytes of code do not fit into a boot sector")
    return code.ljust(_SECTOR_BYTES - len(_BOOT_SIGNATURE), b"\0") + _BOOT_SIGNATURE


def _obstacle() -> str:
    """Why KVM cannot even be tried, in words; empty when it can."""
    if not _KVM.exists():
        return f"{_KVM} does not exist on this machine"
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return f"no permission for {_KVM}: join the group kvm (sudo usermod -aG kvm $USER, log in again)"
    return ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _recall(file: Path, key: str, *, now: float) -> Answer | None:
    entry = _entries(file).get(key)
    if not isinstance(entry, dict):
        return None
    works, reason, when = entry.get("works"), entry.get("reason"), entry.get("when")
    if not isinstance(works, bool) or not isinstance(reason, str) or not isinstance(when, int | float):
        return None
    if not works and not 0 <= now - when <= _BAD_ANSWER_LASTS_S:
        return None
    return Answer(works, reason)


def _remember(file: Path, key: str, answer: Answer, *, now: float) -> None:
    """Write the answer down; a cache that cannot be written costs a probe at every start and nothing else."""
    entries = _entries(file)
    entries.pop(key, None)
    entries[key] = {"works": answer.works, "reason": answer.reason, "when": now}
    kept = dict(list(entries.items())[-_CACHE_LIMIT_ENTRIES:])
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(kept, indent=1))
        temporary.replace(file)


def _entries(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            entries = json.loads(stream.read(_CACHE_LIMIT_BYTES))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
