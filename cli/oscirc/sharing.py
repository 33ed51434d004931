"""Sharing boots: what a fresh instance's first boot touched until its prompt, for the fleet's profile of that version.

Only with the user's yes (`share_boots`, `--share-boot`). The mount that a boot made records first touches beside its
page cache. A process of its own (`python -m oscirc.sharing PLAN`), of low priority, waits for the login prompt, ends
the recording and sends one document, which it leaves in the instance's directory as well. The boot waits for nothing
of this, and whatever fails here stands in the instance's `sharing.log` and nowhere else.

Never recorded: later boots of an instance (where they do not read the image would show what was written), and boots on
a disk that is mounted already (much of it is in the page cache, so an order would be wrong).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc import output_places, recording
from oscirc_blockstore import trace
from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import LocalError, NotFoundError, OscircError, UsageError
from oscirc_blockstore.profile import DEFAULT_NAME, Profile
from oscirc_remote import paths

if TYPE_CHECKING:
    from oscirc_remote.resolving import Resolved
    from oscirc_vmlaunch.instances import Instance

LOG_NAME, DOCUMENT_NAME = "sharing.log", "shared-boot.json"
LIMIT_S = 900.0
SETTLE_S = 3.0
_STALE_S = 86_400
_NICENESS = 10
_ANSWER_S = 20.0
_PAUSES_S = (2.0, 10.0)


@dataclass(frozen=True, slots=True)
class Wish:
    """`send` the boot to the repository, and `save` the same document in a file of the user's."""

    send: bool
    save: Path | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One boot to be shared; texts only, since it goes to another process."""

    trace: str
    instance: str
    mountpoint: str
    manifest: str
    block_size: int
    api_url: str
    path: str
    save: str


def wish(*, share_boot: bool | None, save_boot: Path | None) -> Wish:
    """What was said on the command line, over the preferences. An output that is there already is refused."""
    from oscirc_remote import preferences

    if save_boot is not None and save_boot.exists():
        raise LocalError(f"{save_boot} is there already", hint="give --save-boot another file")
    if save_boot is not None:
        output_places.check_file(save_boot)
    send = preferences.load().share_boots if share_boot is None else share_boot
    return Wish(send, save_boot.absolute() if save_boot else None)


def new_trace(wanted: Wish, resolved: Resolved, *, fresh: bool) -> Path | None:
    """Where a mount is to record this boot; None when it is not to be recorded, or nobody would get it."""
    if not fresh and wanted.save is not None:
        raise UsageError("only the first boot of an instance is recorded", hint="boot the image anew, by reference")
    if not fresh or not (wanted.save or (wanted.send and _api_url(resolved))):
        return None
    directory = paths.runtime_directory() / "boots"
    directory.mkdir(mode=0o700, exist_ok=True)
    for old in directory.glob("*.trace"):  # of a process that was killed
        with contextlib.suppress(OSError):
            if old.stat().st_mtime < time.time() - _STALE_S:
                old.unlink()
    return directory / f"{secrets.token_hex(8)}.trace"


def _api_url(resolved: Resolved) -> str:
    """The API that the repository signed for; empty where it states none, or the version has no label there."""
    facts = resolved.remote.facts()
    return facts.api_url if facts is not None and resolved.version_label else ""


def plan(wanted: Wish, file: Path, resolved: Resolved, instance: Instance) -> Plan:
    """What is to be done with a boot that is recorded in `file`. Where no API is stated, nothing is sent."""
    version = f"{resolved.publisher}/{resolved.image}/versions/{resolved.version_label}"
    return Plan(
        trace=str(file),
        instance=instance.name,
        mountpoint=instance.record.mount_point,
        manifest=resolved.manifest_digest.hex(),
        block_size=resolved.manifest.geometry.block_size,
        api_url=_api_url(resolved) if wanted.send else "",
        path=f"images/{version}/profiles/{DEFAULT_NAME}/runs",
        save=str(wanted.save or ""),
    )


def start(planned: Plan) -> None:
    """Leave the rest to a process of its own; returns at once."""
    subprocess.Popen(
        [sys.executable, "-m", "oscirc.sharing", json.dumps(asdict(planned))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def forget(file: Path, instance: Instance | None) -> None:
    """Nobody will want this recording: its guest does not run."""
    from oscirc_vmlaunch import launching

    if instance is None or launching.find(instance) is None:
        file.unlink(missing_ok=True)


def document_of(file: Path, manifest: str, block_size: int) -> bytes:
    """What is sent of a boot: a profile of one run. `LocalError` for a recording that is not whole."""
    if not trace.ends(file):
        raise LocalError("the recording of the boot is not whole")
    with file.open(encoding="ascii", errors="replace") as lines:
        _, reads = trace.parse(lines)
        positions = trace.first_touch_order(reads, block_size)
    return Profile(parse_hex(manifest), DEFAULT_NAME, 1, tuple(positions)).serialise()


async def _until_prompt(planned: Plan) -> None:
    """Wait for the prompt of the guest, and a moment longer; raises when it does not come."""
    from oscirc_vmlaunch import console, launching
    from oscirc_vmlaunch.instances import Instances

    instance = Instances().load(planned.instance)
    machine = launching.find(instance)
    if machine is None:
        raise NotFoundError(f"{planned.instance} does not run any more")
    await console.wait_for_text(instance.console_log, recording.LOGIN, deadline_s=LIMIT_S, alive=machine.alive)
    await asyncio.sleep(SETTLE_S)


def _end_recording(planned: Plan) -> None:
    from oscirc_fusedriver import control_client, records

    record = records.find(Path(planned.mountpoint))
    if record is not None:  # else the driver has ended, and its recording with it
        control_client.end_trace(record)


def send(planned: Plan, raw: bytes) -> str:
    """Send the document; where it went, for the log. Raises what the network or the server says."""
    from oscirc_publisher.rest import JSON, Body, Patience, RestClient

    with RestClient(planned.api_url, api_url=planned.api_url, patience=Patience(_PAUSES_S)) as client:
        client.call("POST", planned.path, Body.of(raw, JSON), timeout_s=_ANSWER_S)
    return f"sent to {planned.api_url}/{planned.path}"


def share(planned: Plan) -> str:
    """Wait, end the recording, save and send; what was done, in words. Raises `OscircError`, `OSError`."""
    try:
        try:
            asyncio.run(_until_prompt(planned))
        finally:
            _end_recording(planned)
        raw = document_of(Path(planned.trace), planned.manifest, planned.block_size)
    finally:
        Path(planned.trace).unlink(missing_ok=True)
    if planned.save:
        with Path(planned.save).open("xb") as file:
            file.write(raw)
    if not planned.api_url:
        return "recorded; not sent"
    with contextlib.suppress(OSError):  # an ephemeral instance may be gone
        (_directory(planned) / DOCUMENT_NAME).write_bytes(raw)
    return send(planned, raw)


def _directory(planned: Plan) -> Path:
    from oscirc_vmlaunch.instances import Instances

    return Instances().root / planned.instance


def main() -> int:
    """Carry out the plan in the one argument; never a word on a terminal."""
    planned = Plan(**json.loads(sys.argv[1]))
    os.nice(_NICENESS)
    try:
        said, code = share(planned), 0
    except (OscircError, OSError) as error:
        said, code = f"not shared: {error}", 1
    with contextlib.suppress(OSError), (_directory(planned) / LOG_NAME).open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
