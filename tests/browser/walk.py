"""Every page of the server: an address for each route that answers a browser's GET, and for what a page can show.

The routes are the application's own. `unvisited` names those that have no address here, so that no new page is
forgotten. What is no page (`NOT_PAGES`) is fetched and judged by its type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import quote, urldefrag, urljoin, urlsplit

from fastapi.routing import APIRoute
from playwright.sync_api import APIRequestContext, APIResponse
from starlette.routing import compile_path

from .browsing import NOBODY
from .demo_catalog import ADMINISTRATOR, LONG_WORD, PUBLISHER, READER

NOT_PAGES = {"/feed.atom": "application/atom+xml", "/assets/{name}": "text/css", "/screenshots/{address}": "image/png"}
DISKS = {"/disk.raw": "application/octet-stream", "/disk.qcow2": "application/x-qemu-disk"}
HOSTILE = f"/images/carol/{LONG_WORD}"


@dataclass(frozen=True)
class Stop:
    """One page: its address, who sees it, and the status with which it is answered."""

    path: str
    visitor: str = NOBODY
    status: int = 200

    @property
    def is_plain(self) -> bool:
        """Whether this is a page's first state, of a publisher who is no enemy."""
        return "?" not in self.path and LONG_WORD not in self.path


def stops(draft: str) -> tuple[Stop, ...]:
    """All of them; `draft` is the one that is open."""
    everybody = (
        *("/", "/?view=table&sort=released", "/?family=debian&firmware=uefi&q=desktop", "/?q=nothing&family=debian"),
        *("/images/alice/debian", "/images/alice/debian/versions", "/images/alice/debian/updates"),
        *("/images/alice/debian/updates?from=12.5&to=12.8", "/images/alice/debian/updates?from=12.8&to=12.6"),
        *("/images/bob/haiku", "/images/bob/haiku/updates", HOSTILE, f"{HOSTILE}/versions", f"{HOSTILE}/updates"),
        *("/status", "/login"),
    )
    publisher = (
        *("/account", "/publishers", "/publishers/alice", f"/publishers/alice/drafts/{draft}/abandon"),
        *("/publishers/alice/images/debian", "/publishers/alice/images/debian/versions/12.8"),
        "/publishers/alice/images/debian/versions/12.7?" + "why=" + quote("it 'does not' boot") + "&security=on",
        *("/publishers/alice/images/debian/versions/12.5", "/publishers/alice?said=abandoned"),
    )
    administrator = (
        *("/account", "/publishers", "/publishers/carol", f"/publishers/carol/images/{LONG_WORD}"),
        *("/admin/users", "/admin/users?said=saved", "/admin/quotas", "/admin/storage", "/admin/metadata"),
        *("/admin/jobs", "/admin/jobs?state=failed", "/admin/audit", "/admin/audit?action=token.create", "/status"),
    )
    return (
        *(Stop(path) for path in everybody),
        Stop("/images/alice/debian/updates?from=12.4&to=12.8", status=404),
        *(Stop(path, PUBLISHER) for path in publisher),
        Stop("/publishers/bob", READER),
        Stop("/publishers/alice", READER, 403),
        Stop("/admin/users", PUBLISHER, 403),
        *(Stop(path, ADMINISTRATOR) for path in administrator),
    )


def pages_of(routes: Iterable[object]) -> list[str]:
    """The paths of the routes that are pages: they answer GET and are not of the REST API's document."""
    found = []
    for route in routes:
        if isinstance(route, APIRoute):
            found += [route.path] if "GET" in route.methods and not route.include_in_schema else []
        else:  # a router that was included, as newer FastAPIs keep it
            found += pages_of(getattr(getattr(route, "original_router", None), "routes", ()))
    return found


def unvisited(routes: Iterable[object], walked: Iterable[Stop]) -> list[str]:
    """Pages that no stop shows."""
    shown = [stop.path.partition("?")[0] for stop in walked if stop.status == 200]
    left = []
    for path in pages_of(routes):
        pattern, _, _ = compile_path(path)
        if path not in NOT_PAGES and not any(pattern.match(each) for each in shown):
            left.append(path)
    return left


class _Links(HTMLParser):
    """What a page leads to or loads, as absolute addresses without fragments; not where its publisher's words lead."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base, self.found = base, set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if ("rel", "nofollow noopener noreferrer") in attrs:
            return
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.found.add(urldefrag(urljoin(self.base, value)).url)


def links_of(request: APIRequestContext, url: str, path: str) -> set[str]:
    """The addresses on a page."""
    parser = _Links(url + path)
    parser.feed(request.get(url + path).text())
    return parser.found


def followed(request: APIRequestContext, link: str) -> tuple[APIResponse, str]:
    """What a link gives, and of which type it must be; of whole disks only the headers are asked for."""
    path = urlsplit(link).path
    for ending, kind in DISKS.items():
        if path.endswith(ending):
            return request.head(link), kind
    if path.startswith("/api/"):
        return request.get(link), "application/json"
    for template, kind in NOT_PAGES.items():
        if compile_path(template)[0].match(path):
            kinds = {".js": "text/javascript", ".svg": "image/svg+xml"}
            return request.get(link), kinds.get(path[path.rindex(".") :], kind)
    return request.get(link), "text/html"
