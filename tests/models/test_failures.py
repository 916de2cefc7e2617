from __future__ import annotations

import pytest

from streamingllm.errors import ConfigError, ModelLoadError
from streamingllm.models.failures import failing_as_load_error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first.\nsecond"), "model.gguf (first)"),
        (OSError("\n  then this\n"), "model.gguf (then this)"),
        (KeyError(), "model.gguf (KeyError)"),
        (RuntimeError("x" * 500), f"model.gguf ({'x' * 200}...)"),
    ],
)
def test_any_failure_is_told_in_one_line(error: Exception, message: str) -> None:
    with pytest.raises(ModelLoadError) as caught, failing_as_load_error("model.gguf"):
        raise error
    assert str(caught.value) == message
    assert caught.value.__cause__ is error


def test_our_own_errors_and_interrupts_pass() -> None:
    for error in (ConfigError("ours"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, failing_as_load_error("model.gguf"):
            raise error
        assert caught.value is error
