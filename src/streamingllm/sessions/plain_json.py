"""Values that can be written as JSON again, and are not nested without end."""

from __future__ import annotations

import json
from typing import Any

MAX_JSON_DEPTH = 64


def check_json(name: str, value: Any) -> None:
    """Refuse what Python's reader takes but JSON does not allow, and endless nesting.

    Raises:
        ValueError: the value holds half of a character or NaN, or is nested too deep.
    """
    shown = ascii(name[:40])[1:-1]
    pending = [(value, 1)] if isinstance(value, dict | list) else []
    while pending:
        inner, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(
                f"{shown} is nested deeper than {MAX_JSON_DEPTH}; send a flatter value"
            )
        items = inner.values() if isinstance(inner, dict) else inner
        pending += [(item, depth + 1) for item in items if isinstance(item, dict | list)]
    try:
        json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError) as error:  # UnicodeEncodeError is a ValueError
        raise ValueError(f"{shown} is no JSON ({type(error).__name__}); send UTF-8 text") from error
