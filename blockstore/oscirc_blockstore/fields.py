"""Takes typed, bounded fields out of a parsed document; whatever is missing, surplus or of another type is refused."""

from __future__ import annotations

import unicodedata

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError


class Fields:
    """The fields of one JSON object, each to be taken exactly once; `finish` refuses what is left over."""

    def __init__(self, document: object, what: str) -> None:
        if not isinstance(document, dict):
            raise DocumentRefusedError(f"{what} is not an object")
        self._left: dict[str, object] = dict(document)
        self._what = what

    def take(self, key: str) -> object:
        """The raw value; refuses a missing one."""
        if key not in self._left:
            raise DocumentRefusedError(f"{self._what} lacks {key!r}")
        return self._left.pop(key)

    def has(self, key: str) -> bool:
        """Whether an optional field stands there."""
        return key in self._left

    def constant(self, key: str, expected: str) -> None:
        """A field with one allowed value (`format`, `hash`)."""
        value = self.take(key)
        if value != expected:
            raise DocumentRefusedError(
                f"{self._what} states {key} {str(value)[:80]!r}; this version reads {expected!r}",
                hint="a newer oscirc may be needed",
            )

    def integer(self, key: str, low: int, high: int) -> int:
        """An integer with low <= value <= high."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise DocumentRefusedError(f"{self._what} states {key} {str(value)[:80]!r}; {low} to {high} are allowed")
        return value

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise DocumentRefusedError(f"{self._what} states {key} {str(value)[:80]!r}; true or false are allowed")
        return value

    def text(self, key: str, max_chars: int, *, lines: bool = False) -> str:
        """Text without control characters (line feeds and tabs only where `lines`)."""
        return check_text(self.take(key), f"{self._what}: {key}", max_chars, lines=lines)

    def digest(self, key: str) -> Digest:
        """A SHA-256 in lower-case hexadecimal."""
        return parse_hex(self.take(key))

    def sequence(self, key: str, max_items: int) -> list[object]:
        """A list of at most `max_items`."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) > max_items:
            raise DocumentRefusedError(f"{self._what}: {key} is not a list of at most {max_items}")
        return value

    def mapping(self, key: str, max_items: int) -> dict[str, object]:
        """An object of at most `max_items` fields."""
        value = self.take(key)
        if not isinstance(value, dict) or len(value) > max_items:
            raise DocumentRefusedError(f"{self._what}: {key} is not an object of at most {max_items} fields")
        return value

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            raise DocumentRefusedError(f"{self._what} has unknown fields: {', '.join(sorted(self._left))[:200]}")


def check_text(value: object, what: str, max_chars: int, *, lines: bool = False) -> str:
    """`value` if it is text that a terminal and a page can show as it is, else `DocumentRefusedError`.

    Refused are control characters (Unicode Cc: escape sequences), and format characters (Cf) that reorder or hide text.
    """
    if not isinstance(value, str) or len(value) > max_chars:
        raise DocumentRefusedError(f"{what} is not text of at most {max_chars} characters")
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and not (lines and character in "\n\t"):
            raise _refused_character(value, character, what, lines=lines)
    return value


def _refused_character(text: str, character: str, what: str, *, lines: bool) -> DocumentRefusedError:
    before = text[: text.index(character)]
    place = f" in line {before.count(chr(10)) + 1}" if lines else ""
    invisible = unicodedata.category(character) == "Cf"
    return DocumentRefusedError(
        f"{what} holds the control character U+{ord(character):04X}{place}",
        hint="take it out: characters that join, hide or reorder others are not shown; an emoji made of several has one"
        if invisible
        else "take it out: it cannot be shown as it is",
    )


def refuse_bad_names(error: NameRefusedError, what: str) -> DocumentRefusedError:
    """A bad name inside a document is the document's fault, not the caller's."""
    return DocumentRefusedError(f"{what}: {error}")
