"""Classes of transformers for decoders, and models built from a configuration alone."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from streamingllm.errors import ModelLoadError
from streamingllm.integration.trained_sinks import class_with_sinks, sink_kind


def decoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the models of a configuration, with the sinks that it names.

    Raises:
        ConfigError: `attention_sink` of the configuration is unknown.
    """
    with torch.device("meta"):  # only its class is needed
        kind = type(AutoModelForCausalLM.from_config(deepcopy(config)))
    return kind if sink_kind(config) is None else class_with_sinks(kind)


def build_decoder(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a decoder with random weights; the configuration stays as it is."""
    if sink_kind(config) is None:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype)
        return model
    kind: Any = decoder_class(config)
    return kind._from_config(deepcopy(config), dtype=dtype)  # type: ignore[no-any-return]


def check_sinks_used(unexpected: Iterable[str], folder: Path) -> None:
    """Refuse weights of sinks that the configuration does not name.

    Args:
        unexpected: names of tensors that found no place in the model.
        folder: of the checkpoint.

    Raises:
        ModelLoadError: a sink is among them, so that the model would compute something else.
    """
    for name in sorted(unexpected):
        if name.endswith("self_attn.sinks"):
            raise ModelLoadError(
                f"{folder}: has learned sink logits ({name}), but its config.json names no "
                'attention_sink; add "attention_sink": "logit"'
            )
