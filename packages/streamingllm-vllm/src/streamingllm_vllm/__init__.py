"""Streaming mode of vLLM: attention sinks and a rolling window by blocks."""

from __future__ import annotations

import os

from streamingllm_vllm.settings import StreamingSettings

__all__ = ["register"]


def register() -> None:
    """Switch streaming mode on in this process, if the environment sets its sizes.

    vLLM calls this in each of its processes (entry point `vllm.general_plugins`). Without the two
    variables of `settings.py` nothing of vLLM is changed.

    Raises:
        UnsupportedDeploymentError: the version of vLLM or the device is not supported.
    """
    if StreamingSettings.read(os.environ) is None:
        return
    from streamingllm_vllm.registration import register_streaming

    register_streaming()
