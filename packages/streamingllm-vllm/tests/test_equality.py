"""Answers of vLLM under the plugin against `streamingllm.Stream` of the same grain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
import torch
import transformers

from streamingllm import Stream, StreamConfig

VOCAB_SIZE, BLOCK_SIZE = 512, 32
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "vllm_engine.py"
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "yarn": ("llama", {"rope_parameters": YARN}),
    "qwen2": ("qwen2", {}),
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a small model with random weights."""
    base = tmp_path_factory.mktemp("models")

    def save(name: str) -> Path:
        if not (base / name).exists():
            family, fields = FAMILIES[name]
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(family, **SHAPE, **fields)
            model = transformers.AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.data.normal_(0, 0.12)
            model.save_pretrained(base / name)
        return base / name

    return save


def ids(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE, (count,), generator=generator).tolist()


def generate(
    folder: Path, prompts: list[list[int]], max_tokens: int, n: int, m: int, **job: Any
) -> dict[str, Any]:
    """Return the answers of an engine in a process of its own."""
    options = {
        "block_size": BLOCK_SIZE,
        "enable_prefix_caching": False,
        "max_model_len": 100_000,
        **job.pop("options"),
    }
    whole = {
        "model": str(folder),
        "options": options,
        "prompts": prompts,
        "max_tokens": [max_tokens] * len(prompts),
        "num_logprobs": 10,
        "of_prompt": True,
        **job,
    }
    environment = {
        **os.environ,
        "STREAMINGLLM_VLLM_NUM_SINK_TOKENS": str(n),
        "STREAMINGLLM_VLLM_WINDOW_SIZE": str(m),
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    job_file, answers = folder / "job.json", folder / "answers.json"
    job_file.write_text(json.dumps(whole))
    command = [sys.executable, SCRIPT, job_file, answers]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(answers.read_text())


def check(
    folder: Path, prompts: list[list[int]], found: dict[str, Any], n: int, m: int, atol: float
) -> None:
    """Compare each position of each prompt and answer with a stream that reads the same."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt, answer in zip(prompts, found["answers"], strict=True):
        stream = Stream(model, StreamConfig(n, m, eviction_grain=BLOCK_SIZE))
        fed = torch.tensor([*prompt, *answer["token_ids"][:-1]])
        logprobs = stream.feed(fed).log_softmax(dim=-1)
        tops = [*answer["prompt_top"][1:], *answer["top"]]
        assert len(tops) == len(logprobs)
        for row, top in zip(logprobs, tops, strict=True):
            tokens = torch.tensor([token for token, _ in top])
            expected = torch.tensor([value for _, value in top])
            torch.testing.assert_close(row[tokens], expected, rtol=0, atol=atol)
            # The row's own maximum may be a tie of rounded numbers.
            assert row[tokens[0]] >= row.max() - atol


@pytest.mark.parametrize("name", FAMILIES)
def test_family_in_chunks(name: str, folder_of: Callable[[str], Path]) -> None:
    prompts = [ids(500), ids(333, seed=1)]
    options = {"max_num_batched_tokens": 100}
    found = generate(folder_of(name), prompts, 90, 32, 128, options=options)
    check(folder_of(name), prompts, found, 32, 128, atol=5e-4)


@pytest.mark.parametrize(("n", "m", "chunk"), [(64, 64, 64), (32, 128, 37), (96, 32, 1200)])
def test_answers_do_not_depend_on_chunks(
    n: int, m: int, chunk: int, folder_of: Callable[[str], Path]
) -> None:
    prompts = [ids(1169)]
    options = {"max_num_batched_tokens": chunk}
    found = generate(folder_of("llama"), prompts, 70, n, m, options=options)
    check(folder_of("llama"), prompts, found, n, m, atol=5e-4)


def test_past_the_rotary_table_with_constant_blocks(folder_of: Callable[[str], Path]) -> None:
    prompts = [ids(700), ids(60, seed=2), ids(150, seed=3)]
    options = {
        "max_num_batched_tokens": 90,
        "max_num_seqs": 3,
        "hf_overrides": {"max_position_embeddings": 256},
    }
    found = generate(folder_of("llama"), prompts, 600, 32, 96, options=options)
    check(folder_of("llama"), prompts, found, 32, 96, atol=5e-4)
    for blocks in found["blocks"].values():
        assert max(blocks[len(blocks) // 2 :]) <= (32 + 96) // BLOCK_SIZE + 1


def test_preempted_past_its_window(folder_of: Callable[[str], Path]) -> None:
    prompts = [ids(300), ids(40, seed=4)]
    options = {
        "max_num_batched_tokens": 64,
        "max_num_seqs": 2,
        "scheduling_policy": "priority",
        "num_gpu_blocks_override": 15,
    }
    found = generate(
        folder_of("llama"),
        prompts,
        400,
        32,
        128,
        options=options,
        arrivals=[0, 250],
        priorities=[1, 0],
    )
    assert found["preemptions"]["0"] >= 1
    check(folder_of("llama"), prompts, found, 32, 128, atol=5e-4)
