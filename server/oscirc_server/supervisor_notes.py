"""What a service manager is told, in systemd's protocol (sd_notify(3)): ready, reloading, stopping.

A datagram to the socket that `NOTIFY_SOCKET` names; nothing at all where nobody set it. What cannot be sent is logged
and changes nothing: the service manager has a time limit of its own.
"""

from __future__ import annotations

import logging
import os
import socket
import time

VARIABLE = "NOTIFY_SOCKET"

_log = logging.getLogger(__name__)


def tell(*assignments: str) -> bool:
    """Send the assignments (`READY=1`, …) in one message; whether somebody was told."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto("\n".join(assignments).encode(), place)
    except OSError as error:
        _log.warning("the service manager could not be told", extra={"error": str(error)})
        return False
    return True


def ready(address: str) -> None:
    """Connections are accepted, from the start or again after a reload."""
    tell("READY=1", f"STATUS=listening on {address}")


def reloading() -> None:
    """Certificates are being read anew (systemd wants the monotonic time, in microseconds)."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """No new connections; requests under way are finished."""
    tell("STOPPING=1")
