"""`oscirc doctor`: what this machine has, what it lacks, and what to install."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from oscirc.options import json_option
from oscirc.output import print_json


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, what was found, and, when it matters, what to do."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def _program(name: str, package: str, purpose: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or "not found", "" if path else f"install {package}: {purpose}")


def _fuse() -> Finding:
    device = Path("/dev/fuse")
    if not device.exists():
        return Finding("/dev/fuse", ok=False, found="not there", advice="load the kernel's fuse module")
    usable = os.access(device, os.R_OK | os.W_OK)
    return Finding(
        "/dev/fuse", usable, "usable" if usable else "no permission", "" if usable else "ask for access to it"
    )


def _accelerator() -> Finding:
    from oscirc_blockstore.errors import OscircError
    from oscirc_vmlaunch import accelerators, programs

    try:
        choice = asyncio.run(accelerators.choose("auto", qemu=programs.find_qemu("x86_64")))
    except OscircError as error:
        return Finding("accelerator", ok=False, found=str(error), advice=error.hint)
    return Finding("accelerator", ok=True, found=f"{choice.accelerator} ({choice.reason})")


def _firmware() -> Finding:
    from oscirc_blockstore.errors import OscircError
    from oscirc_vmlaunch import firmware

    try:
        found = firmware.find("uefi", "x86_64")
    except OscircError as error:
        return Finding("UEFI firmware", ok=False, found=str(error), advice=error.hint)
    return Finding("UEFI firmware", ok=True, found=str(found.code) if found else "none needed")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _fuse,
    lambda: _program("fusermount3", "fuse3", "mounting as an ordinary user"),
    lambda: _program("qemu-system-x86_64", "qemu-system-x86", "booting guests"),
    lambda: _program("qemu-img", "qemu-utils", "overlays, and publishing qcow2"),
    _firmware,
    _accelerator,
)


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Check what this machine has and what it lacks. Exit code 6 when something is missing.

    \b
    Example:
      oscirc doctor
    """
    findings = [check() for check in CHECKS]
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'LACK'}  {finding.what}: {finding.found}")
            if finding.advice:
                click.echo(f"      {finding.advice}")
    return 0 if all(finding.ok for finding in findings) else 6
