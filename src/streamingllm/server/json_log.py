"""Lines of the log: one object of JSON each, without user text unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from types import TracebackType
from typing import Any

_LOGGERS = ("streamingllm", "uvicorn")
_MODULES_WITHOUT_USER_TEXT = ("apsw",)


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON.

    The message of an exception may quote what a user sent. Its type and its frames are written
    always, its message only if it comes from the system or the database.

    Args:
        shows_user_text: write messages of all exceptions.
    """

    def __init__(self, *, shows_user_text: bool = False) -> None:
        super().__init__()
        self._shows_user_text = shows_user_text

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)

    def formatException(  # noqa: N802  (a name of logging)
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Return the traceback of an exception and of those that led to it."""
        if self._shows_user_text:
            return super().formatException(ei)
        parts: list[str] = []
        error, seen = ei[1], set[int]()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            frames = "".join(traceback.format_tb(error.__traceback__))
            parts.append(f"{frames}{_named(error)}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n\n".join(reversed(parts))


def log_to_stderr(level: str, *, shows_user_text: bool = False) -> None:
    """Write this library's log, and uvicorn's, to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(shows_user_text=shows_user_text))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _named(error: BaseException) -> str:
    """Return the type of an exception, with its message if that cannot quote a user."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    is_known = isinstance(error, OSError) or name.startswith(_MODULES_WITHOUT_USER_TEXT)
    return f"{name}: {error}" if is_known else name
