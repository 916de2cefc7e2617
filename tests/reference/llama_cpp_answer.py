"""Let llama.cpp go on with a prompt, in a process of its own because it aborts on some errors.

Run: `python llama_cpp_answer.py MODEL.gguf VOCABULARY TOKENS ID [ID ...]`
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def answer(
    path: Path, prompt: list[int], num_tokens: int, vocab_size: int
) -> tuple[list[int], list[list[float]]]:
    """Return llama.cpp's greedy tokens and the log-probabilities that each was chosen by.

    Args:
        path: of a GGUF file.
        prompt: ids.
        num_tokens: at most.
        vocab_size: of the model.
    """
    numbers = [vocab_size, num_tokens, *prompt]
    command = [sys.executable, __file__, str(path), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = json.loads(done.stdout.splitlines()[-1])
    return [step[0] for step in steps], [step[1] for step in steps]


def main(path: str, vocab_size: int, num_tokens: int, prompt: list[int]) -> None:
    """Print the tokens and their log-probabilities as JSON."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port, params.hostnames = 0, ["127.0.0.1"]
    params.n_parallel, params.n_ctx, params.warmup = 1, 256, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    request = {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0.0}
    reply = xllamacpp.Server(params).handle_completions(request | {"logprobs": vocab_size})
    steps = []
    for step in reply["choices"][0]["logprobs"]["content"]:
        by_id = {entry["id"]: entry["logprob"] for entry in step["top_logprobs"]}
        steps.append((step["id"], [by_id[token_id] for token_id in range(vocab_size)]))
    sys.stdout.write(json.dumps(steps) + "\n")


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    size, count, *ids = map(int, arguments)
    main(path, size, count, ids)
