"""Logging: one line per event on standard error, `key=value` pairs after the message, no secrets.

Loggers say what happened in a few fixed words and put the facts into `extra`; this module gives them one form.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def _value(value: object) -> str:
    text = str(value)
    plain = text and all(character.isalnum() or character in "-_.:/@+%[]" for character in text)
    return text if plain else json.dumps(text, ensure_ascii=True)


class LineFormatter(logging.Formatter):
    """`time=… level=… event="…" key=value …`, a traceback below it when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        parts = [f"time={stamp}", f"level={record.levelname.lower()}", f"event={_value(record.getMessage())}"]
        extras = ((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        parts += [f"{key}={_value(value)}" for key, value in extras]
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return " ".join(parts)


def configure(level: str) -> None:
    """Send every logger's lines to standard error; libraries from `warning` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("oscirc_server").setLevel(level.upper())
