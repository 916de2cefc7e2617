"""Refuse deployments that streaming mode does not support, by name."""

from __future__ import annotations

import vllm
from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.utils.torch_utils import is_quantized_kv_cache
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from streamingllm_vllm.errors import UnsupportedDeploymentError
from streamingllm_vllm.settings import StreamingSettings

SUPPORTED_VERSION = "0.32"
# Each is compared with `streamingllm.Stream` in tests/test_equality.py.
TESTED_ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM")


def check_installation() -> None:
    """Refuse other versions of vLLM and other devices.

    Raises:
        UnsupportedDeploymentError: as named.
    """
    version = vllm.__version__
    if version.split(".")[:2] != SUPPORTED_VERSION.split("."):
        raise UnsupportedDeploymentError(
            f"vllm={version} is not supported; install vllm=={SUPPORTED_VERSION}.*"
        )
    if not current_platform.is_cpu():
        raise UnsupportedDeploymentError(
            f"device={current_platform.device_type} is not supported; streaming mode was tested "
            "with vLLM's CPU backend only"
        )


def check_deployment(config: VllmConfig) -> None:
    """Refuse what was not shown to keep answers equal.

    Raises:
        UnsupportedDeploymentError: as named.
    """
    for name, value, is_refused, advice in _refusals(config):
        if is_refused:
            raise UnsupportedDeploymentError(
                f"{name}={value} is not supported in streaming mode; {advice}"
            )


def check_layer(layer: CPUAttentionBackendImpl) -> None:
    """Refuse layers that do more than attend to the tokens of their own cache.

    Raises:
        UnsupportedDeploymentError: as named.
    """
    for name, value, is_refused in (
        ("attn_type", layer.attn_type, layer.attn_type != AttentionType.DECODER),
        ("sliding_window", layer.sliding_window, layer.sliding_window != -1),
        ("alibi_slopes", "set", layer.alibi_slopes is not None),
        ("sinks", "learned", layer.sinks is not None),
        ("kv_sharing", "set", layer.kv_sharing_target_layer_name is not None),
    ):
        if is_refused:
            raise UnsupportedDeploymentError(
                f"{name}={value} is not supported in streaming mode; choose a model whose layers "
                "all attend to all tokens of their own cache"
            )


def check_sizes(settings: StreamingSettings, block_size: int, most_tokens: int, table: int) -> None:
    """Refuse sizes that do not fit blocks or the rotary table.

    Args:
        settings: sinks and window.
        block_size: tokens of a block.
        most_tokens: tokens of a step at most.
        table: positions of the rotary table.

    Raises:
        UnsupportedDeploymentError: as named.
    """
    for name in ("num_sink_tokens", "window_size"):
        value = getattr(settings, name)
        if value % block_size:
            raise UnsupportedDeploymentError(
                f"{name}={value} is no multiple of block_size={block_size}; choose "
                f"{-(-value // block_size) * block_size}, or another --block-size"
            )
    needed = settings.num_sink_tokens + settings.window_size + most_tokens
    if needed > table:
        raise UnsupportedDeploymentError(
            f"max_num_batched_tokens={most_tokens} with {settings.num_sink_tokens} sinks and a "
            f"window of {settings.window_size} passes the rotary table of {table} positions; "
            f"choose at most {table - needed + most_tokens}"
        )


def _refusals(config: VllmConfig) -> list[tuple[str, object, bool, str]]:
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    architecture = model.architecture
    ranks = {
        name: getattr(parallel, name)
        for name in (
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "data_parallel_size",
            "decode_context_parallel_size",
            "prefill_context_parallel_size",
        )
    }
    most = max(ranks, key=lambda name: ranks[name])
    prefix = "start with --no-enable-prefix-caching"
    return [
        ("use_mla", True, model.use_mla, "choose a model without MLA"),
        (
            "architecture",
            architecture,
            architecture not in TESTED_ARCHITECTURES,
            f"choose one of {', '.join(TESTED_ARCHITECTURES)}",
        ),
        ("runner_type", model.runner_type, model.runner_type != "generate", "generate text"),
        (
            "speculative_config",
            "set",
            config.speculative_config is not None,
            "start without speculation",
        ),
        ("enable_prefix_caching", True, bool(cache.enable_prefix_caching), prefix),
        ("kv_transfer_config", "set", config.kv_transfer_config is not None, "leave it out"),
        (
            "kv_cache_dtype",
            cache.cache_dtype,
            is_quantized_kv_cache(cache.cache_dtype),
            "use the model's",
        ),
        (most, ranks[most], ranks[most] > 1, "start one rank per process"),
        ("lora_config", "set", config.lora_config is not None, "start without LoRA"),
    ]
