"""`repository.json`, the repository's own TUF target: its name, mirrors and API address, signed by its targets key."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from oscirc_blockstore import canonical
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.fields import Fields, check_text

FORMAT = "oscirc-repository-1"
TARGET = "repository.json"
MAX_BYTES = 64 * 1024
MAX_MIRRORS = 100
MAX_URL_CHARS = 500


def check_url(text: object, what: str) -> str:
    """An absolute http(s) URL without credentials, query or fragment and without a final slash."""
    url = check_text(text, what, MAX_URL_CHARS)
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise DocumentRefusedError(f"{what} is not a plain http(s) URL: {url!r}")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """`api_url` is the full address of the REST API (`…/api/v1`), `mirrors` are base URLs; empty when not stated."""

    name: str
    api_url: str = ""
    mirrors: tuple[str, ...] = ()

    def serialise(self) -> bytes:
        """The canonical bytes."""
        raw = canonical.serialise(
            {"format": FORMAT, "name": self.name, "api_url": self.api_url, "mirrors": list(self.mirrors)}
        )
        parse(raw)
        return raw


def parse(raw: bytes) -> RepositoryFacts:
    """The facts in `raw`, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_BYTES, TARGET), TARGET)
    fields.constant("format", FORMAT)
    name = fields.text("name", 200)
    api_url = fields.text("api_url", MAX_URL_CHARS)
    mirrors = tuple(check_url(item, "a mirror") for item in fields.sequence("mirrors", MAX_MIRRORS))
    fields.finish()
    return RepositoryFacts(name, check_url(api_url, "the API address") if api_url else "", mirrors)
