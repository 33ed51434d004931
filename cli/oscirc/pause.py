"""Why a guest is paused, in words: what QEMU knows and what the driver of its disk knows, put together. Pure.

QEMU knows only that a read failed; the driver knows that the network is gone, since when and why. A guest that was
paused for want of the network goes on by itself, and every text here says so.
"""

from __future__ import annotations

from oscirc import status_text
from oscirc.mount_facts import Facts

NETWORK, FULL_DISK, DRIVER, DISK, USER = "network", "full disk", "driver", "disk", "user"


def cause_of(paused_by: str, mounted: Facts) -> str:
    """The cause, given QEMU's (`oscirc_vmlaunch.launching.PausedBy`) and its mount's facts; empty: it is not paused."""
    if paused_by != DISK:
        return paused_by
    if mounted.get("network_problem"):
        return NETWORK
    return DRIVER if mounted.get("stale") else DISK


def briefly(state: str, cause: str) -> str:
    """For a table: `paused (network)`."""
    return f"{state} ({cause})" if cause and cause != USER else state


def in_words(state: str, cause: str, mounted: Facts, now: float | None = None) -> str:
    """For one instance: why, since when, and what will happen."""
    if not cause or cause == USER:
        return state
    return f"{briefly(state, cause)}: {why(cause, mounted, now)}"


def why(cause: str, mounted: Facts, now: float | None = None) -> str:
    """What keeps the guest, and that it goes on by itself or what to do."""
    if cause == NETWORK:
        return f"the network is {status_text.outage(mounted, now)}, and so does the guest"
    if cause == FULL_DISK:
        return "this machine's disk is full; the guest goes on by itself once there is room"
    if cause == DRIVER:
        return "the driver of its disk died; it is started again, and the guest goes on by itself"
    return "its disk could not be read or written; it is tried again, and the guest goes on by itself when that works"
