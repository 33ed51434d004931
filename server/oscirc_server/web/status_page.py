"""`/status`, for everybody: until when what is signed is good, who else serves it, what it takes, what was served.

The same as JSON for whoever asks for that. Nothing in it is secret: readers see the expiries in the metadata, and what
is kept in the catalog. Counting many rows happens once a minute (`services.figures`), mirrors are asked by the server's
upkeep (`mirror_probes`); a request starts neither.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from oscirc_server import alarms
from oscirc_server.alarms import RoleHealth
from oscirc_server.api.context import context_of
from oscirc_server.clock import date_text
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.web import inner, rendering

MAX_PUBLISHERS: Final = 50
_TOP: Final = (*OFFLINE_ROLES, *ONLINE_ROLES)
_CACHE: Final = "public, max-age=30"

router = APIRouter(include_in_schema=False)


def software() -> str:
    """The version of this program."""
    try:
        return version("oscirc")
    except PackageNotFoundError:
        return "unknown"


def shown_roles(roles: tuple[RoleHealth, ...]) -> list[RoleHealth]:
    """The four in their order, then the publishers that expire first."""
    top = sorted((role for role in roles if role.role in _TOP), key=lambda role: _TOP.index(role.role))
    publishers = sorted((role for role in roles if role.role not in _TOP), key=lambda role: role.expires_s)
    return top + publishers[:MAX_PUBLISHERS]


@router.api_route("/status", methods=["GET", "HEAD"])
def status_page(request: Request) -> Response:
    """How this repository is."""
    context = context_of(request)
    now_s = context.installation.now_s()
    figures, traffic = context.figures.current(), context.metrics.traffic()
    with context.installation.database.read() as session:
        every = alarms.roles_of(session, now_s)
        values = rendering.common(session, request, inner.up_of(request))
    roles, mirrors = shown_roles(every), context.mirrors.states()
    facts: dict[str, object] = {
        "repository": values["repository"],
        "software": software(),
        "severity": alarms.worst(every).value,
        "now": date_text(now_s),
        "started": date_text(context.started_s),
        "roles": [
            {
                "role": role.role,
                "version": role.version,
                "expires": date_text(role.expires_s),
                "left_s": role.left_s,
                "severity": role.severity.value,
            }
            for role in roles
        ],
        "mirrors": [
            {
                "url": mirror.url,
                "answer": mirror.answer,
                "asked": None if mirror.asked_s is None else date_text(mirror.asked_s),
            }
            for mirror in mirrors
        ],
        "storage": {
            "images": figures.images,
            "blocks": figures.blocks,
            "logical_bytes": figures.logical_bytes,
            "unique_bytes": figures.unique_bytes,
            "stored_bytes": figures.stored_bytes,
            "deduplication_ratio": None if figures.ratio is None else round(figures.ratio, 2),
        },
        "traffic_of_this_process": {
            "requests": traffic.requests,
            "received_bytes": traffic.received_bytes,
            "sent_bytes": traffic.sent_bytes,
        },
    }
    if rendering.wants_json(request):
        return JSONResponse(facts, headers={"Vary": "Accept", "Cache-Control": _CACHE})
    shown = {"roles": roles, "mirrors": mirrors, "figures": figures, "traffic": traffic, "now_s": now_s}
    left_out = len(every) - len(roles)
    answer = rendering.page("status.html", {**values, **facts, **shown, "left_out": left_out})
    answer.headers["Cache-Control"] = _CACHE
    return answer
