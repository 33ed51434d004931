"""What a publisher says of an image: title, summary, README, licence, homepage, kind, and until when it is supported.

It is part of the image index, signed as all of it; unlike a manifest it may change at any time. Nothing depends on it
but what people are shown, so every field may be empty, and text is bounded and free of what reorders or hides text.

- A homepage is https, without credentials, and short: a page links to it and shows its host.
- The end of life is a date for each version of the system (as manifests state it); the entry "" speaks for all others.
- An index without `about` and one whose `about` is empty mean the same: the empty one is written as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.fields import Fields, check_text

MAX_TITLE_CHARS: Final = 100
MAX_SUMMARY_CHARS: Final = 300
MAX_README_BYTES: Final = 65_536
MAX_LICENCE_CHARS: Final = 200
MAX_HOMEPAGE_CHARS: Final = 500
MAX_ENDS_OF_LIFE: Final = 100
MAX_SYSTEM_VERSION_CHARS: Final = 64
KINDS: Final = ("", "desktop", "server", "other")

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")
_URL = re.compile(r"[!#-;=?-Z_a-z~\[\]]+")


@dataclass(frozen=True, slots=True)
class About:
    """`kind` is one of `KINDS`; `end_of_life` maps a version of the system to a day, `2028-06-30`."""

    title: str = ""
    summary: str = ""
    readme: str = ""
    licence: str = ""
    homepage: str = ""
    kind: str = ""
    end_of_life: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def ends(self, system_version: str) -> str:
        """The day on which support of this version of the system ends, or "" where nothing is said."""
        return self.end_of_life.get(system_version) or self.end_of_life.get("", "")

    def document(self) -> dict[str, object]:
        """As it stands in the index; `parse` takes it back."""
        return {
            "title": self.title,
            "summary": self.summary,
            "readme": self.readme,
            "licence": self.licence,
            "homepage": self.homepage,
            "kind": self.kind,
            "end_of_life": dict(self.end_of_life),
        }


NOTHING_SAID: Final = About()


def check_homepage(url: str) -> str:
    """An https address with a plain host and without credentials (or ""), else `DocumentRefusedError`."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        raise DocumentRefusedError("about: the homepage is no address") from None
    if not url.startswith("https://") or not _URL.fullmatch(url) or not _HOST.fullmatch(parts.netloc):
        raise DocumentRefusedError("about: the homepage is not of the form https://host/…")
    return url


def check_day(text: str) -> str:
    """A day of the calendar, `2028-06-30`, or `DocumentRefusedError`."""
    try:
        if _DAY.fullmatch(text):
            date.fromisoformat(text)
            return text
    except ValueError:  # no such day in the calendar
        pass
    raise DocumentRefusedError("about: an end of life is not a day of the form 2028-06-30")


def check(said: About) -> About:
    """What is to be said, if an index can hold it; else `DocumentRefusedError`."""
    return said if said == NOTHING_SAID else parse(said.document())


def parse(document: object) -> About:
    """What was said, checked; raises `DocumentRefusedError`."""
    fields = Fields(document, "about")
    title = fields.text("title", MAX_TITLE_CHARS)
    summary = fields.text("summary", MAX_SUMMARY_CHARS)
    readme = fields.text("readme", MAX_README_BYTES, lines=True)
    if len(readme.encode()) > MAX_README_BYTES:
        raise DocumentRefusedError(f"about: the README has more than {MAX_README_BYTES} bytes")
    licence = fields.text("licence", MAX_LICENCE_CHARS)
    homepage = check_homepage(fields.text("homepage", MAX_HOMEPAGE_CHARS))
    kind = fields.text("kind", 16)
    if kind not in KINDS:
        raise DocumentRefusedError("about: the kind is none of desktop, server, other")
    ends = {
        check_text(version, "about: a version of the system", MAX_SYSTEM_VERSION_CHARS): check_day(
            check_text(day, "about: an end of life", 10)
        )
        for version, day in fields.mapping("end_of_life", MAX_ENDS_OF_LIFE).items()
    }
    fields.finish()
    said = About(title, summary, readme, licence, homepage, kind, MappingProxyType(ends))
    if said == NOTHING_SAID:
        raise DocumentRefusedError("about: nothing is said; leave it out")
    return said
