"""The form of a bearer token: what server and client agree on before anybody is asked.

`oscirc_`, 43 characters of base 62 (256 random bits) and 6 more: the CRC-32 of all before them, base 62. A mistyped or
cut-off token is told at once, and secret scanners find tokens by their form. Tokens of the first form, `oscirc_` and 43
characters of base64url without a checksum, stay valid: they are told apart by their length.
"""

from __future__ import annotations

import re
import zlib

PREFIX = "oscirc_"
SECRET_CHARS = 43
CHECKSUM_CHARS = 6
FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{SECRET_CHARS + CHECKSUM_CHARS}}}")

_FIRST_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z_-]{{43}}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def from_secret(secret: bytes) -> str:
    """The token's text for 32 random bytes."""
    if len(secret) != _SECRET_BYTES:
        raise ValueError("a token is made of 32 random bytes")
    text = PREFIX + _base62(int.from_bytes(secret, "big"), SECRET_CHARS)
    return text + _checksum(text)


def is_whole(text: str) -> bool:
    """Whether this can be a token: of either form, and with the right checksum where there is one."""
    if FORM.fullmatch(text):
        return text.endswith(_checksum(text[:-CHECKSUM_CHARS]))
    return _FIRST_FORM.fullmatch(text) is not None


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), CHECKSUM_CHARS)
