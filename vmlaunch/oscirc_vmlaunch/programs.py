"""Finds the programs this room runs, and runs the short ones with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.errors import DeadlineExceededError, LocalError, MissingProgramError, UsageError

_VERSION_DEADLINE_S = 10.0
_OUTPUT_LIMIT_CHARACTERS = 4000
# RHEL and its relatives keep their only QEMU outside of PATH.
_QEMU_PLACES = {"x86_64": ("qemu-system-x86_64", "/usr/libexec/qemu-kvm")}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a short program ended: `returncode` is None when it had to be killed at its deadline."""

    returncode: int | None
    output: str


def find_qemu(architecture: str) -> Path:
    """The QEMU for a guest architecture; UsageError when oscirc starts none such, MissingProgramError when absent."""
    places = _QEMU_PLACES.get(architecture)
    if places is None:
        known = ", ".join(sorted(_QEMU_PLACES))
        raise UsageError(f"guests for {architecture!r} cannot be started yet", hint=f"known architectures: {known}")
    for place in places:
        if found := shutil.which(place):
            return Path(found).absolute()
    raise MissingProgramError(
        f"{places[0]} is not installed",
        hint="Debian and Ubuntu: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86",
    )


def find_qemu_img() -> Path:
    """The `qemu-img` program; MissingProgramError when it is absent."""
    if found := shutil.which("qemu-img"):
        return Path(found).absolute()
    raise MissingProgramError(
        "qemu-img is not installed",
        hint="Debian and Ubuntu: apt install qemu-utils; Fedora: dnf install qemu-img",
    )


async def qemu_version(qemu: Path) -> str:
    """The version of a QEMU binary, such as `7.2.22`."""
    outcome = await run([str(qemu), "--version"], deadline_s=_VERSION_DEADLINE_S)
    match = re.search(r"version (\S+)", outcome.output)
    if outcome.returncode != 0 or match is None:
        raise LocalError(f"{qemu} does not tell its version: {outcome.output.strip() or 'no output'}")
    return match.group(1)


async def run(argv: Sequence[str], *, deadline_s: float) -> Outcome:
    """Run a program to its end, at most `deadline_s` seconds, and return what it printed (both streams, the last part).

    The program is killed, and waited for, at the deadline and when the caller is cancelled.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,  # the terminal's Ctrl-C is ours to translate
    )
    returncode: int | None = None
    output = b""
    try:
        async with asyncio.timeout(deadline_s):
            output, _ = await process.communicate()
        returncode = process.returncode
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Outcome(returncode, output.decode(errors="replace")[-_OUTPUT_LIMIT_CHARACTERS:])


async def run_checked(argv: Sequence[str], *, deadline_s: float) -> str:
    """As `run`, for a program that has to succeed: its output, else a LocalError with the program's own words."""
    outcome = await run(argv, deadline_s=deadline_s)
    name = Path(argv[0]).name
    if outcome.returncode is None:
        raise DeadlineExceededError(f"{name} did not finish in {deadline_s:g} s")
    if outcome.returncode != 0:
        raise LocalError(f"{name} failed: {outcome.output.strip() or f'exit status {outcome.returncode}'}")
    return outcome.output
