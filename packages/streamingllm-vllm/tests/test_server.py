"""vLLM's own server under the plugin: processes of its own, metrics, refusals."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("vllm")
import torch
import transformers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def command(folder: Path, *options: str) -> list[str]:
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    sizes = ["--block-size", "32", "--max-num-batched-tokens", "64", "--max-num-seqs", "2"]
    lengths = ["--max-model-len", "5000", "--enforce-eager", "--skip-tokenizer-init"]
    return [*server, "--model", str(folder), *sizes, *lengths, *options]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "STREAMINGLLM_VLLM_NUM_SINK_TOKENS": "32",
        "STREAMINGLLM_VLLM_WINDOW_SIZE": "128",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = command(folder, "--no-enable-prefix-caching", "--port", str(port))
    with log.open("w") as output:
        server = subprocess.Popen(given, env=environment(), stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert server.poll() is None, log.read_text()[-4000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def test_a_request_past_the_rotary_table_and_its_metrics(folder: Path, tmp_path: Path) -> None:
    prompt = [3 + k % 500 for k in range(700)]
    body = {"model": str(folder), "prompt": prompt, "max_tokens": 50, "ignore_eos": True}
    body |= {"return_token_ids": True, "detokenize": False, "temperature": 0}
    with serving(folder, tmp_path / "log") as url:
        request = urllib.request.Request(
            f"{url}/v1/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
        with urllib.request.urlopen(f"{url}/metrics") as response:
            metrics = response.read().decode()
    assert len(answer["choices"][0]["token_ids"]) == 50
    # The last query is at 748; its window begins at 736 - 128 + 32, after 32 sinks.
    assert number(metrics, "streamingllm_evicted_tokens_total") == 608
    assert number(metrics, "streamingllm_requests_past_window_total") == 1
    assert number(metrics, "streamingllm_cache_size_tokens") == 160


def number(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    assert found, f"{name} is not among the metrics"
    return float(found[1])


def test_prefix_caching_is_refused_at_the_start(folder: Path) -> None:
    given = command(folder, "--enable-prefix-caching")
    done = subprocess.run(given, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "enable_prefix_caching=True is not supported" in done.stdout + done.stderr


def test_mla_is_refused_at_the_start(tmp_path: Path) -> None:
    transformers.DeepseekV2Config(
        architectures=["DeepseekV2ForCausalLM"],
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        first_k_dense_replace=2,
        max_position_embeddings=256,
    ).save_pretrained(tmp_path)
    given = command(tmp_path, "--no-enable-prefix-caching", "--load-format", "dummy")
    done = subprocess.run(given, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "use_mla=True is not supported in streaming mode" in done.stdout + done.stderr
