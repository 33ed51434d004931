"""Canonical JSON (RFC 8785): the one byte form of a document, so that its digest names its meaning.

A document is accepted only as the very bytes that serialising it again gives. That refuses duplicate keys, stray
white space, other number forms and unsorted keys in one comparison; floats are refused outright, since no format
here needs one.
"""

from __future__ import annotations

import json
from typing import NoReturn

import rfc8785

from oscirc_blockstore.errors import DocumentRefusedError


def serialise(document: dict[str, object]) -> bytes:
    """The canonical bytes of a JSON object made of str, int, bool, None, list and dict."""
    try:
        return rfc8785.dumps(document)  # type: ignore[arg-type]  # its JSON alias is invariant
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise DocumentRefusedError(f"the document cannot be written as canonical JSON: {error}") from None


def _refuse_number(text: str) -> NoReturn:
    raise DocumentRefusedError(f"a document holds the number {text[:40]}: only integers are allowed")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DocumentRefusedError("a document holds the same key twice")
    return result


def parse(raw: bytes, max_bytes: int, what: str) -> dict[str, object]:
    """The JSON object in `raw`; raise `DocumentRefusedError` unless `raw` is its canonical form within `max_bytes`."""
    if len(raw) > max_bytes:
        raise DocumentRefusedError(f"{what} has {len(raw)} bytes; at most {max_bytes} are allowed")
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise DocumentRefusedError(f"{what} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise DocumentRefusedError(f"{what} is not a JSON object")
    if serialise(document) != raw:
        raise DocumentRefusedError(f"{what} is not in canonical form (RFC 8785)")
    return document
