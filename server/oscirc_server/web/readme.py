"""A publisher's README as harmless HTML: Markdown with raw HTML off, then an allow-list over what came out.

Two walls, each enough by itself: markdown-it-py escapes raw HTML and makes no links but those allowed here; nh3 then
drops every element, attribute and address that is not listed. The page's policy (nothing inline, nothing from other
hosts) stands behind both.

- No pictures at all: none may come from another host, and this server keeps none of a publisher's.
- Links are https without credentials, mailto, or lead to a heading of the README; never to an address of this server
  that the page would complete. They carry `nofollow noopener noreferrer`.
- Headings begin below the page's own and skip no level. Their ids begin with `readme-`: none is another part's.
- Length, lines, marks and nesting are bounded before or while parsing. Beyond what people write, the text is shown as
  it was written: nothing of it is dropped, and nothing takes long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from unicodedata import category

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from oscirc_blockstore.about import MAX_README_BYTES

MAX_HTML_CHARS: Final = 8 * MAX_README_BYTES
_MAX_NESTING: Final = 20
_MAX_LINES: Final = 4_096
_MAX_LINE_CHARS: Final = 8_192
_MAX_MARKS: Final = 8_192
_MAX_CELLS: Final = 16_384  # a table's short rows are filled up to the width of its head
_MAX_QUOTED: Final = 100_000  # quotes times lines: each that ends a quote has the parser look at all the rest again
_MAX_SLUG_CHARS: Final = 60
_PAGE_LEVEL: Final = 2
_LAST_LEVEL: Final = 6
_HEADINGS: Final = ("h3", "h4", "h5", "h6")
_TEXT: Final = ("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a")
_TABLE: Final = ("table", "thead", "tbody", "tr", "th", "td")
_ATTRIBUTES: Final = {"a": {"href"}, "ol": {"start"}, **{heading: {"id"} for heading in _HEADINGS}}
_PREFIX: Final = "readme-"
_LINK = re.compile(r"https://[^/?#@\\]+([/?#].*)?|mailto:.*|#.*", re.IGNORECASE)
_MARKS = re.compile(r"[\[\]*_`<>!~|&\\]")
_LEAD = re.compile(r"^[ \t>*+\-.\d)]+", re.MULTILINE)
_UNSEEN: Final = ("Cc", "Cf", "Cs")
_NO_SLUG = re.compile(r"[^\w-]+")


def _links_to(_markdown: MarkdownIt, url: str) -> bool:
    return _LINK.fullmatch(url) is not None


class _Markdown(MarkdownIt):
    validateLink = _links_to  # noqa: N815  # the library's name


_MARKDOWN: Final = (
    _Markdown("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    .enable(["table", "strikethrough"])
    .disable("image")
)


@lru_cache(maxsize=32)
def rendered(text: str) -> Markup:
    """The README for a page; never raises for any text."""
    if not _is_costly(text):
        tokens = _MARKDOWN.parse(text)
        if not _is_beyond(tokens):
            _set_headings(tokens)
            html = _seen(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
            if len(html) <= MAX_HTML_CHARS:
                return Markup(harmless(html))  # noqa: S704  # nothing is left but what is listed above
    return Markup("<pre>{}</pre>").format(text[:MAX_README_BYTES])


def harmless(html: str) -> str:
    """The second wall by itself: any HTML, without what is not listed above."""
    return nh3.clean(
        html,
        tags={*_HEADINGS, *_TEXT, *_TABLE},
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_attribute,
        url_schemes={"https", "mailto"},
        link_rel="nofollow noopener noreferrer",
    )


def _seen(html: str) -> str:
    """Without what reorders or hides text: Markdown makes of entities (`&rlm;`) what a README itself may not hold."""
    return "".join(each for each in html if each == "\n" or category(each) not in _UNSEEN)


def host_of(homepage: str) -> str:
    """What a link to a checked homepage is shown as."""
    return homepage.removeprefix("https://").partition("/")[0].partition("?")[0].partition("#")[0]


def _attribute(_tag: str, name: str, value: str) -> str | None:
    """The value where it may stay: nh3 lets addresses without a scheme pass, which would be this server's."""
    if name == "href":
        return value if _LINK.fullmatch(value) and (value[:1] != "#" or value.startswith(f"#{_PREFIX}")) else None
    return value if name != "id" or value.startswith(_PREFIX) else None


def _is_costly(text: str) -> bool:
    """Lines and marks beyond what a person writes, which a parser might take long over."""
    lines = text.split("\n")
    return (
        len(text) > MAX_README_BYTES
        or len(lines) > _MAX_LINES
        or any(len(line) > _MAX_LINE_CHARS for line in lines)
        or len(_MARKS.findall(text)) > _MAX_MARKS
        or max(line.count("|") for line in lines) * len(lines) > _MAX_CELLS
        or sum(quotes.count(">") for quotes in _LEAD.findall(text)) * len(lines) > _MAX_QUOTED
    )


def _is_beyond(tokens: Sequence[Token]) -> bool:
    """Whether the parser came to its limit of nesting, where it drops text; or addresses used again and again."""
    addresses = sum(
        len(str(value)) for token in tokens for child in token.children or () for value in child.attrs.values()
    )
    return addresses > MAX_HTML_CHARS or any(token.level >= _MAX_NESTING - 1 for token in tokens)


def _set_headings(tokens: Sequence[Token]) -> None:
    """Levels and ids of headings, and links to them."""
    above, slugs = _PAGE_LEVEL, set[str]()
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            above = min(int(token.tag[1:]) + _PAGE_LEVEL, above + 1, _LAST_LEVEL)
            token.tag = tokens[at + 2].tag = f"h{above}"
            slug = _slug(tokens[at + 1].content)
            if slug and slug not in slugs:
                slugs.add(slug)
                token.attrSet("id", f"{_PREFIX}{slug}")
        for child in token.children or ():
            href = str(child.attrGet("href") or "")
            if href.startswith("#"):
                child.attrSet("href", f"#{_PREFIX}{href[1:].lower()}")


def _slug(heading: str) -> str:
    """As other sites name headings, so that a README's table of contents leads somewhere here, too."""
    return _NO_SLUG.sub("", heading.strip().lower().replace(" ", "-"))[:_MAX_SLUG_CHARS]
