"""Failures of other libraries, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamingllm.errors import ModelLoadError, StreamingLLMError, first_line

_MAX_REASON_CHARACTERS = 200


@contextmanager
def failing_as_load_error(subject: str) -> Iterator[None]:
    """Raise whatever goes wrong in the body as a `ModelLoadError` about `subject`.

    transformers, safetensors, gguf and the hub raise errors of every kind for a bad checkpoint
    (KeyError, OSError, RuntimeError, their own). So all of them are caught here.
    """
    try:
        yield
    except StreamingLLMError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{subject} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    reason = first_line(error).rstrip(" .:")
    if len(reason) > _MAX_REASON_CHARACTERS:
        reason = reason[:_MAX_REASON_CHARACTERS] + "..."
    return reason
