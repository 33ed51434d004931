"""Recording what a person does: the guest's console is this terminal until Ctrl-] is typed or the guest ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from oscirc.output import say
from oscirc_blockstore.errors import UsageError

if TYPE_CHECKING:
    from oscirc_vmlaunch.launching import RunningMachine

UNTIL = "until Ctrl-] is typed or the guest ends"


def check(*, interactive: bool, display: str, screenshot: bool, as_json: bool) -> None:
    """Refuse what does not go with a person at the console, before anything is started."""
    if not interactive:
        if display != "none":
            raise UsageError("--display is for a recording by hand", hint="add --interactive")
        return
    if screenshot or as_json:
        raise UsageError(
            f"--{'screenshot' if screenshot else 'json'} does not go with --interactive, whose output is the console"
        )
    if not os.isatty(sys.stdin.fileno()):
        raise UsageError("--interactive needs a terminal", hint="without one: oscirc mount --trace, profile make")


async def stay(machine: RunningMachine) -> None:
    """Let a guest that was started paused run, its console here. A cancellation passes: who called ends the guest."""
    from oscirc_vmlaunch import console

    async def let_run() -> None:
        async with machine.monitor() as monitor:
            await monitor.resume()

    await console.attach(machine.instance.console_socket, attached=let_run)
    say("")  # the guest's last line has no end
