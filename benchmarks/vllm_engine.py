"""Generate with vLLM in this process and write what it answered; `vllm_plugin` starts it.

It runs in an environment that has vLLM, and needs nothing of this project except the plugin:
`python benchmarks/vllm_engine.py JOB.json ANSWERS.json`

The job has `model`, `options` of `vllm.LLM`, `prompts` (lists of ids), `max_tokens` (of each), and
`num_logprobs`. Optional: `of_prompt` returns log-probabilities of the prompts as well; `arrivals`
are the steps before which the requests are sent; `priorities` order them under vLLM's policy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# Blocks and preemptions are counted in the scheduler, which has to be in this process.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import torch
import vllm

DEFAULTS = {
    "dtype": "float32",
    "enforce_eager": True,
    "skip_tokenizer_init": True,
    "max_num_seqs": 2,
}


def top(logprobs: dict[int, Any]) -> list[tuple[int, float]]:
    """Return ids and log-probabilities, the likeliest first."""
    found = [(int(token), float(each.logprob)) for token, each in logprobs.items()]
    return sorted(found, key=lambda pair: -pair[1])


class Counts:
    """Count blocks of requests and preemptions. vLLM adds a suffix to the ids of requests.

    Args:
        scheduler: of the engine.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._null = scheduler.kv_cache_manager.block_pool.null_block
        self.blocks: dict[str, list[int]] = {}
        self.preemptions: dict[str, int] = {}

    def look(self) -> None:
        """Add a step."""
        (manager,) = self._scheduler.kv_cache_manager.coordinator.single_type_managers
        for name, blocks in manager.req_to_blocks.items():
            held = sum(block is not self._null for block in blocks)
            self.blocks.setdefault(name.partition("-")[0], []).append(held)
        for name, request in self._scheduler.requests.items():
            self.preemptions[name.partition("-")[0]] = request.num_preemptions


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Generate one answer for each prompt, all at once."""
    started = time.perf_counter()
    llm = vllm.LLM(job["model"], **{**DEFAULTS, **job["options"]})
    engine = llm.llm_engine
    scheduler = engine.engine_core.engine_core.scheduler
    loaded = time.perf_counter()
    number = len(job["prompts"])
    arrivals = job.get("arrivals") or [0] * number
    counts, finished, steps = Counts(scheduler), dict[int, Any](), list[float]()
    while len(finished) < number:
        for index in range(number):
            if arrivals[index] == len(steps):
                _send(engine, job, index)
        before = time.perf_counter()
        for output in engine.step():
            if output.finished:
                finished[int(output.request_id)] = output
        steps.append(time.perf_counter() - before)
        counts.look()
    return {
        "answers": [_answer(finished[index]) for index in range(number)],
        "blocks": counts.blocks,
        "preemptions": counts.preemptions,
        "seconds": {"load": loaded - started, "steps": steps},
        "pool_blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
        "torch_threads": torch.get_num_threads(),
    }


def _send(engine: Any, job: dict[str, Any], index: int) -> None:
    params = vllm.SamplingParams(
        temperature=0,
        max_tokens=job["max_tokens"][index],
        ignore_eos=True,
        logprobs=job["num_logprobs"],
        prompt_logprobs=job["num_logprobs"] if job.get("of_prompt") else None,
        detokenize=False,
    )
    priority = (job.get("priorities") or [0] * (index + 1))[index]
    prompt = {"prompt_token_ids": job["prompts"][index]}
    engine.add_request(str(index), prompt, params, priority=priority)


def _answer(output: Any) -> dict[str, Any]:
    completion = output.outputs[0]
    prompt = output.prompt_logprobs or []
    return {
        "token_ids": [int(token) for token in completion.token_ids],
        "top": [top(each) for each in completion.logprobs or []],
        "prompt_top": [None if each is None else top(each) for each in prompt],
    }


if __name__ == "__main__":
    answers = run(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(answers) + "\n")
