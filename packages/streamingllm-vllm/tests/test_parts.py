"""Parts of the plugin on vLLM's own operators and configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

pytest.importorskip("vllm")
import torch
import transformers
from streamingllm_vllm.deployment import check_deployment, check_sizes
from streamingllm_vllm.errors import UnsupportedDeploymentError
from streamingllm_vllm.metrics import EvictionStatLogger
from streamingllm_vllm.packed_cache import PackedCache
from streamingllm_vllm.rotary import RotaryTable
from streamingllm_vllm.settings import SINKS_VARIABLE, WINDOW_VARIABLE, StreamingSettings
from vllm import _custom_ops as ops
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.rotary_embedding import RotaryEmbedding
from vllm.v1.attention.backends.cpu_attn import _get_attn_isa
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("block_size", "head_size"), [(32, 64), (64, 128), (128, 32)])
def test_packed_keys_and_values_are_read_back(
    dtype: torch.dtype, block_size: int, head_size: int
) -> None:
    isa = _get_attn_isa(dtype, block_size, head_size)
    packed = PackedCache.probe(block_size, 3, head_size, dtype, isa)
    cache = torch.zeros(5, 3, block_size, 2 * head_size, dtype=dtype)
    keys, values = torch.randn(2, 70, 3, head_size).to(dtype)
    slots = torch.randperm(5 * block_size)[:70]
    key_cache, value_cache = cache.view(5, 3, 2 * block_size, head_size).chunk(2, dim=2)
    ops.cpu_attn_reshape_and_cache(keys, values, key_cache, value_cache, slots, isa)
    found_keys, found_values = packed.read(cache, slots)
    torch.testing.assert_close(found_keys, keys, rtol=0, atol=0)
    torch.testing.assert_close(found_values, values, rtol=0, atol=0)


def rope(base: float = 10_000.0) -> RotaryEmbedding:
    with set_current_vllm_config(VllmConfig()):
        return RotaryEmbedding(64, 64, 1024, base, True, torch.float32)


def test_turned_keys_are_those_of_later_positions() -> None:
    embedding = rope()
    keys = torch.randn(6, 2, 64)
    positions, distances = torch.tensor([0, 5, 700, 9, 800, 3]), [4, 0, -600, 1000, 100, 1]

    def at(where: torch.Tensor) -> torch.Tensor:
        flat = keys.flatten(1)
        _, key = embedding.forward_native(where, flat.clone(), flat.clone())
        return key.view(6, 2, 64)

    table = RotaryTable(embedding._compute_cos_sin_cache())
    turned = table.turn(at(positions), np.array(distances))
    expected = at(positions + torch.tensor(distances))
    torch.testing.assert_close(turned, expected, rtol=0, atol=2e-3)
    assert table.num_positions == 1024


def test_a_table_that_changes_with_length_is_refused() -> None:
    short, long = rope()._compute_cos_sin_cache(), rope(50_000.0)._compute_cos_sin_cache()
    with pytest.raises(UnsupportedDeploymentError, match="rotary_table"):
        RotaryTable(torch.cat((short[:300], long[300:])))


def config(folder: Path, family: str = "llama", **options: Any) -> VllmConfig:
    fields = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}
    transformers.AutoConfig.for_model(
        family, **fields, architectures=[f"{family.title()}ForCausalLM"]
    ).save_pretrained(folder)
    given = {"skip_tokenizer_init": True, "enable_prefix_caching": False, **options}
    return EngineArgs(str(folder), **given).create_engine_config()


def test_a_plain_deployment_is_accepted(tmp_path: Path) -> None:
    check_deployment(config(tmp_path))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"enable_prefix_caching": True}, "enable_prefix_caching=True"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
        ({"enable_lora": True}, "lora_config=set"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            "speculative_config=set",
        ),
        ({"family": "gemma"}, "architecture=GemmaForCausalLM"),
    ],
)
def test_other_deployments_are_refused_by_name(
    options: dict[str, Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedDeploymentError, match=name):
        check_deployment(config(tmp_path, **options))


@pytest.mark.parametrize(
    ("n", "m", "most_tokens", "message"),
    [
        (16, 128, 512, "num_sink_tokens=16 is no multiple of block_size=32; choose 32"),
        (32, 100, 512, "window_size=100 is no multiple of block_size=32; choose 128"),
        (32, 128, 900, "max_num_batched_tokens=900 .* choose at most 864"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(n: int, m: int, most_tokens: int, message: str) -> None:
    with pytest.raises(UnsupportedDeploymentError, match=message):
        check_sizes(StreamingSettings(n, m), 32, most_tokens, table=1024)
    check_sizes(StreamingSettings(32, 128), 32, 864, table=1024)


def test_the_switch() -> None:
    assert StreamingSettings.read({}) is None
    both = {SINKS_VARIABLE: "32", WINDOW_VARIABLE: "128"}
    assert StreamingSettings.read(both) == StreamingSettings(32, 128)
    for other in ({SINKS_VARIABLE: "32"}, {**both, WINDOW_VARIABLE: "many"}):
        with pytest.raises(UnsupportedDeploymentError, match=WINDOW_VARIABLE):
            StreamingSettings.read(other)
    with pytest.raises(UnsupportedDeploymentError, match="num_sink_tokens=0"):
        StreamingSettings.read({**both, SINKS_VARIABLE: "0"})


def test_what_windows_evict_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ((SINKS_VARIABLE, "32"), (WINDOW_VARIABLE, "128")):
        monkeypatch.setenv(name, value)
    logger = EvictionStatLogger(config(tmp_path, block_size=32))
    step = IterationStats()
    step.finished_requests = [
        FinishedRequestStats(FinishReason.LENGTH, num_prompt_tokens=p, num_generation_tokens=50)
        for p in (700, 111, 112)
    ]
    names = ("streamingllm_evicted_tokens_total", "streamingllm_requests_past_window_total")
    before = [REGISTRY.get_sample_value(name) or 0 for name in names]
    logger.record(None, step)
    after = [REGISTRY.get_sample_value(name) or 0 for name in names]
    # The windows of the last queries, 748, 159 and 160, begin at 640, 32 and 64.
    assert [b - a for a, b in zip(before, after, strict=True)] == [640, 2]
    assert REGISTRY.get_sample_value("streamingllm_cache_size_tokens") == 160
