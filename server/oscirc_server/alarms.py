"""What will stop being valid, and when: the one place where expiries become alarms.

`roles_in_force` gives a value per role that clients read; the status command, the log, health and metrics all show
these and none computes its own. The terms:

- root half a year before its end (several people have to meet), targets 60 days, publishers 30 days;
- snapshot and timestamp when nobody renewed them for 30 hours: a running server does so every 24, and they live seven
  days, so an alarm leaves nearly six to find out why;
- critical a week before the end (of the online roles two days), expired from the end on.

A publisher that was taken out keeps its role in every snapshot, nobody reads it, and it is nobody's alarm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from oscirc_blockstore.trust import ALARM_BEFORE_EXPIRY_S, DAY_S, ONLINE_RENEWAL_S
from oscirc_server import delegations, repository
from oscirc_server.clock import date_text
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.models import SignedRole

ROOT_ALARM_S = 180 * DAY_S
TARGETS_ALARM_S = 60 * DAY_S
ONLINE_OVERDUE_S = 6 * 3600
CRITICAL_S = 7 * DAY_S
ONLINE_CRITICAL_S = 2 * DAY_S


class Severity(StrEnum):
    """How bad it is; the order of the members is from well to worst."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """A role in force; times in seconds since the epoch, `left_s` negative once it has expired.

    `overdue_s` says for how long an online role should have been renewed already; 0 for all others.
    """

    role: str
    version: int
    signed_s: int
    expires_s: int
    left_s: int
    overdue_s: int
    severity: Severity

    @property
    def alarm(self) -> str:
        """A sentence for people, empty when all is well."""
        if self.severity is Severity.OK:
            return ""
        verb = "expired" if self.severity is Severity.EXPIRED else "expires"
        said = f"the {self.role} role {verb} on {date_text(self.expires_s)}: {_remedy(self.role)}"
        if self.overdue_s:
            said += f"; its renewal is {self.overdue_s // 3600} hours late: is a server running, and what does it log?"
        return said


def _remedy(role: str) -> str:
    if role in ONLINE_ROLES:
        return "a running server renews it, or oscirc serve resign online"
    if role in OFFLINE_ROLES:
        return f"oscirc serve resign {role}, or oscirc ceremony {role} where several people sign"
    return f"its publisher signs again: oscirc publisher resign {role}"


def _severity(role: str, left_s: int, overdue_s: int) -> Severity:
    online = role in ONLINE_ROLES
    if left_s <= 0:
        return Severity.EXPIRED
    if left_s <= (ONLINE_CRITICAL_S if online else CRITICAL_S):
        return Severity.CRITICAL
    if online:
        return Severity.WARNING if overdue_s > ONLINE_OVERDUE_S else Severity.OK
    before_s = {"root": ROOT_ALARM_S, "targets": TARGETS_ALARM_S}.get(role, ALARM_BEFORE_EXPIRY_S)
    return Severity.WARNING if left_s <= before_s else Severity.OK


def health_of(row: SignedRole, now_s: int) -> RoleHealth:
    """What the terms above say of one role."""
    left_s = row.expires_s - now_s
    overdue_s = max(0, now_s - row.signed_s - ONLINE_RENEWAL_S) if row.role in ONLINE_ROLES else 0
    severity = _severity(row.role, left_s, overdue_s)
    return RoleHealth(row.role, row.version, row.signed_s, row.expires_s, left_s, overdue_s, severity)


def roles_of(session: Session, now_s: int) -> tuple[RoleHealth, ...]:
    """Every role in force, by name."""
    delegated = set(delegations.publishers(repository.current_targets(session).signed))
    top = {*OFFLINE_ROLES, *ONLINE_ROLES}
    rows = repository.latest_roles(session)
    return tuple(health_of(row, now_s) for row in rows if row.role in top or row.role in delegated)


def roles_in_force(installation: Installation) -> tuple[RoleHealth, ...]:
    """The same on a transaction of its own: for health and metrics."""
    with installation.database.read() as session:
        return roles_of(session, installation.now_s())


def worst(roles: Iterable[RoleHealth]) -> Severity:
    """The worst of all."""
    order = list(Severity)
    return max((role.severity for role in roles), key=order.index, default=Severity.OK)
