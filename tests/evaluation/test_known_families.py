"""Rules that read a configuration say what the model itself says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.evaluation import known_families
from streamingllm.evaluation.checkpoint_inspection import inspect_by_rules, inspect_checkpoint
from streamingllm.evaluation.family_rules import NotKnownError
from streamingllm.evaluation.inspection import inspect_miniature, inspect_model
from streamingllm.models import Checkpoint
from tests.reference.families import FAMILIES, model_of
from tests.reference.family_gguf import GGUF_CASES, write_family_gguf
from tests.reference.gguf_hybrid_cases import HYBRID_CASES

CONFIG = StreamConfig(4, 12)
SIZES: dict[str, Any] = {"vocab_size": 71, "num_hidden_layers": 3, "num_attention_heads": 4}
REFUSED: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_bigcode": {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 32}
    | {"attention_types": [[["global", "local"], 1]]},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 2},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"word_embed_proj_dim": 32, "max_position_embeddings": 32},
}


def saved(model: PreTrainedModel, folder: Path) -> Checkpoint:
    model.save_pretrained(folder)
    return Checkpoint(folder, gguf_file=None, source="test")


def restate(checkpoint: Checkpoint, **fields: Any) -> None:
    """Change fields of a checkpoint's configuration; None takes one away."""
    path = checkpoint.folder / "config.json"
    stated = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))


def new_model(family: str, **fields: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(family, vocab_size=71, pad_token_id=0, **fields)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_the_tests(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = model_of(name, dtype)
    checkpoint = saved(model, tmp_path)
    assert inspect_by_rules(checkpoint, CONFIG, dtype=dtype) == inspect_model(model, CONFIG)


def test_every_rule_is_tried() -> None:
    tried = {family.model_type for family in FAMILIES.values()}
    assert set(known_families.KNOWN_FAMILIES) == tried
    assert set(known_families.REFUSED_FAMILIES) == set(REFUSED)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_stream(family: str, tmp_path: Path) -> None:
    model = new_model(family, **REFUSED[family])
    facts = inspect_by_rules(saved(model, tmp_path), CONFIG)
    assert facts == inspect_model(model, CONFIG)
    assert facts.refusal is not None


@pytest.mark.parametrize("family", known_families.KNOWN_FAMILIES)
def test_the_output_layer_is_tied_by_default_where_it_is_in_transformers(family: str) -> None:
    config = AutoConfig.for_model(family)
    assert known_families.KNOWN_FAMILIES[family].tied == config.tie_word_embeddings


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("gemma3", {"layer_types": None, "sliding_window_pattern": 2}),
        ("gemma3", {"layer_types": None}),
        ("gemma3", {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 8}}),
        ("cohere2", {"layer_types": None, "sliding_window_pattern": 3}),
        ("gemma2-6", {"layer_types": None}),
        ("gpt-oss", {"layer_types": None}),
        ("llama", {"rope_parameters": None}),
        ("llama", {"head_dim": None, "rope_theta": 5e5}),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("llama-yarn", {"torch_dtype": "bfloat16", "dtype": None}),
        ("qwen2", {"layer_types": None, "max_window_layers": 1}),
        ("deepseek-v3", {"architectures": ["DeepseekV3ForCausalLM"]}),
    ],
)
def test_what_older_files_state(family: str, fields: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = saved(model_of(family, torch.float32), tmp_path)
    restate(checkpoint, **fields)
    wanted = inspect_miniature(checkpoint, CONFIG, dtype=None, device=torch.device("cpu"))
    assert inspect_by_rules(checkpoint, CONFIG) == wanted


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"model_type": "no-such-family"}),
        ("llama", {"num_key_value_heads": None}),
        ("llama", {"max_position_embeddings": None}),
        ("llama", {"sliding_window": 8}),
        ("llama", {"layer_types": ["sliding_attention"] * 3}),
        ("llama", {"quantization_config": {"bits": 4}}),
        ("llama", {"rope_parameters": {"rope_type": "new", "factor": 2.0}}),
        ("llama", {"num_hidden_layers": 4}),
        ("llama", {"dtype": "float8_e4m3fn"}),
        ("qwen2", {"use_sliding_window": True}),
        ("qwen3", {"head_dim": None}),
        ("mistral-5", {"sliding_window": None}),
        ("smollm3", {"no_rope_layers": None}),
        ("mpt", {"attn_config": {"alibi": False}}),
        ("falcon", {"alibi": None}),
        ("stablelm", {"head_dim": 8}),
        ("gemma3", {"use_bidirectional_attention": True}),
        ("gpt-oss", {"rope_parameters": None}),
    ],
)
def test_what_no_rule_covers_is_left_to_the_model(
    family: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = saved(model_of(family, torch.float32), tmp_path)
    inspect_by_rules(checkpoint, CONFIG)
    restate(checkpoint, **fields)
    with pytest.raises(NotKnownError):
        inspect_by_rules(checkpoint, CONFIG)


def test_the_model_answers_for_a_family_without_a_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = saved(model_of("olmo2", torch.float32), tmp_path)
    by_rules = inspect_checkpoint(checkpoint, CONFIG)
    monkeypatch.setattr(
        "streamingllm.evaluation.checkpoint_inspection.KNOWN_FAMILIES",
        {},
    )
    with pytest.raises(NotKnownError, match="model_type='olmo2'"):
        inspect_by_rules(checkpoint, CONFIG)
    assert inspect_checkpoint(checkpoint, CONFIG) == by_rules


LEFT_TO_THE_MODEL = (
    *("arcee", "cohere2", "ernie4_5", "exaone4", "gemma", "glm4moe", "hunyuan-dense", "nemotron"),
    *("mpt", "olmo", "olmo2-local", "seed_oss"),
    *("mistral3-scaled", "gemma3n", "gemma3n-unshared", "gemma4", "gemma4-sparse"),
    *HYBRID_CASES,
)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", GGUF_CASES)
def test_a_gguf_file(case: str, tied: bool, tmp_path: Path) -> None:
    write_family_gguf(tmp_path / "small.gguf", case, tied=tied)
    checkpoint = Checkpoint(tmp_path, gguf_file="small.gguf", source="test")
    for dtype in (None, torch.bfloat16):
        wanted = inspect_miniature(checkpoint, CONFIG, dtype=dtype, device=torch.device("cpu"))
        try:
            assert inspect_by_rules(checkpoint, CONFIG, dtype=dtype) == wanted
        except NotKnownError:
            assert case in LEFT_TO_THE_MODEL
