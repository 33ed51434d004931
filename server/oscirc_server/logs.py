"""Logging: one line per event on standard error, `key=value` pairs or one JSON object; no secrets.

Loggers say what happened in a few fixed words and put the facts into `extra`; this module gives them one form, and the
request's id where there is one. Nobody logs a token or a password; what looks like one all the same (in the message of
a library's error, say) is blanked out before the line is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Literal

from oscirc_server import request_ids

LogFormat = Literal["lines", "json"]

BLANK = "[removed]"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_SECRETS = (
    (re.compile(r"oscirc_[A-Za-z0-9_-]{20,}"), BLANK),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\g<1>{BLANK}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\g<1> {BLANK}"),
    (
        re.compile(r"(?i)(password|passphrase|secret_access_key|client_secret)(\s*[=:]\s*)[^\s,;&\"']+"),
        rf"\1\2{BLANK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), BLANK),
)


def without_secrets(text: str) -> str:
    """The text, with what looks like a token, a password in a URL or a private key taken out."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _stamp(record: logging.LogRecord) -> str:
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.created * 1000) % 1000:03d}Z"
    )


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    yield from ((key, value) for key, value in vars(record).items() if key not in _STANDARD)
    if (request_id := request_ids.current()) and "request_id" not in vars(record):
        yield "request_id", request_id


def _value(value: object) -> str:
    text = without_secrets(str(value))
    plain = text and all(character.isalnum() or character in "-_.:/@+%[]{}" for character in text)
    return text if plain else json.dumps(text, ensure_ascii=True)


class LineFormatter(logging.Formatter):
    """`time=… level=… event="…" key=value …`, a traceback below it when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        parts = [f"time={_stamp(record)}", f"level={record.levelname.lower()}", f"event={_value(record.getMessage())}"]
        parts += [f"{key}={_value(value)}" for key, value in _extras(record)]
        if record.exc_info:
            parts.append("\n" + without_secrets(self.formatException(record.exc_info)))
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One object: `time`, `level`, `logger`, `event`, the facts under their names, `traceback` when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, ASCII; numbers and truth values stay what they are."""
        found: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": without_secrets(record.getMessage()),
        }
        for key, value in _extras(record):
            plain = value is None or isinstance(value, bool | int | float)
            found[key] = value if plain else without_secrets(str(value))
        if record.exc_info:
            found["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(found, ensure_ascii=True)


def configure(level: str, form: LogFormat = "lines") -> None:
    """Send every logger's lines to standard error; libraries from `warning` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("oscirc_server").setLevel(level.upper())
