"""Checks of numbers that callers give."""

from __future__ import annotations

from collections.abc import Collection

from streamingllm.errors import ConfigError, StreamingLLMError


def check_integer(
    name: str,
    value: object,
    low: int,
    high: int | None = None,
    *,
    error: type[StreamingLLMError] = ConfigError,
) -> None:
    """Refuse a value that is no integer from `low` to `high`; a bool is none.

    Raises:
        StreamingLLMError: of the type `error`; the value is of another type or out of range.
    """
    allowed = f">= {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{name}={value!r} is no integer; choose a whole number {allowed}")
    if value < low or (high is not None and value > high):
        raise error(f"{name}={value!r} is out of range; choose a whole number {allowed}")


def check_choice(
    name: str,
    value: object,
    choices: Collection[object],
    *,
    error: type[StreamingLLMError] = ConfigError,
) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        StreamingLLMError: of the type `error`; the message lists the choices.
    """
    if value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise error(f"{name}={value!r} is unknown; choose one of {allowed}")
