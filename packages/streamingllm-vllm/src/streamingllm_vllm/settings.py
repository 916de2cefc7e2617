"""Switch of streaming mode: two variables of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamingllm_vllm.errors import UnsupportedDeploymentError

SINKS_VARIABLE = "STREAMINGLLM_VLLM_NUM_SINK_TOKENS"
WINDOW_VARIABLE = "STREAMINGLLM_VLLM_WINDOW_SIZE"


@dataclass(frozen=True)
class StreamingSettings:
    """Give the tokens that each request of a deployment keeps.

    Args:
        num_sink_tokens: first tokens kept for ever (n).
        window_size: most recent tokens a query sees, itself included (m).

    Raises:
        UnsupportedDeploymentError: a number is less than 1.
    """

    num_sink_tokens: int
    window_size: int

    def __post_init__(self) -> None:
        for name in ("num_sink_tokens", "window_size"):
            if getattr(self, name) < 1:
                raise UnsupportedDeploymentError(
                    f"{name}={getattr(self, name)} is too small; choose a multiple of a block"
                )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> StreamingSettings | None:
        """Return the settings of an environment; None if it sets neither variable.

        Processes that vLLM starts have the environment of the first, so all agree.

        Raises:
            UnsupportedDeploymentError: only one is set, or one is not an integer.
        """
        found = {
            name: environment.get(name, "").strip() for name in (SINKS_VARIABLE, WINDOW_VARIABLE)
        }
        if not any(found.values()):
            return None
        for name, value in found.items():
            if not value.isascii() or not value.isdigit():
                raise UnsupportedDeploymentError(
                    f"{name}={value!r} is no number of tokens; set {SINKS_VARIABLE} and "
                    f"{WINDOW_VARIABLE} both, or unset both"
                )
        return cls(int(found[SINKS_VARIABLE]), int(found[WINDOW_VARIABLE]))
