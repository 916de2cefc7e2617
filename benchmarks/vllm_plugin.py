"""Compare vLLM under the plugin `streamingllm-vllm` with `Stream` of the same eviction grain.

Run: `python -m benchmarks.vllm_plugin --vllm-python VENV/bin/python --json
benchmarks/results/vllm-plugin.json`

vLLM generates in its own environment; `Stream` then reads the same tokens, and the argmax and the
log-probabilities of the likeliest tokens are compared at each position. Both read the same weights
in float32. Cases that are not run keep their results in the file.
"""

from __future__ import annotations

import json as json_module
import os
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.texts import open_documents, read_tokens

_NUM_LOGPROBS = 20
_BLOCK_SIZE = 32


@dataclass(frozen=True)
class Case:
    """Describe one run of vLLM.

    Args:
        name: of the case.
        prompts: tokens of each prompt; all are sent at once.
        max_tokens: tokens generated for each.
        num_sink_tokens: sinks (n).
        window_size: window (m).
        chunk: tokens of a step at most.
        of_prompt: whether the positions of the prompts are compared as well.
        arrivals: steps before which the prompts are sent; later ones go first. Empty: all at once.
        options: of vLLM, in addition.
    """

    name: str
    prompts: tuple[int, ...]
    max_tokens: int
    num_sink_tokens: int = 32
    window_size: int = 128
    chunk: int = 256
    of_prompt: bool = False
    arrivals: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


_CUT = {"hf_overrides": {"max_position_embeddings": 512}}
_SIXTEEN = tuple(range(60, 700, 40))
CASES = (
    *(
        Case(f"prompt of 1,169 in chunks of {chunk}", (1169,), 100, chunk=chunk, of_prompt=True)
        for chunk in (64, 256, 1169)
    ),
    Case("two at once", (300, 700), 200, chunk=200),
    Case("sixteen at once", _SIXTEEN, 60, chunk=512, options={"max_num_seqs": 16}),
    Case("table of 512, 8,600 tokens", (8000,), 600, options=_CUT),
    Case("table of 8,192, 8,600 tokens", (8000,), 600, window_size=256, chunk=1024),
    Case(
        "preempted after 600 tokens",
        (500, 40),
        250,
        chunk=64,
        arrivals=(0, 108),
        options={"scheduling_policy": "priority", "num_gpu_blocks_override": 15},
    ),
)


def generate(vllm_python: Path, folder: Path, case: Case, prompts: list[list[int]]) -> Any:
    """Return what vLLM answers in its own environment."""
    folder_of_job = Path(tempfile.mkdtemp())
    job, answers = folder_of_job / "job.json", folder_of_job / "answers.json"
    options = {
        "block_size": _BLOCK_SIZE,
        "enable_prefix_caching": False,
        "max_num_batched_tokens": case.chunk,
        "max_model_len": 1_000_000,
        "max_logprobs": _NUM_LOGPROBS,
    }
    described = {
        "model": str(folder),
        "options": {**options, **case.options},
        "prompts": prompts,
        "max_tokens": [case.max_tokens] * len(prompts),
        "num_logprobs": _NUM_LOGPROBS,
        "of_prompt": case.of_prompt,
        "arrivals": case.arrivals or None,
        "priorities": [-at for at in case.arrivals] or None,
    }
    job.write_text(json_module.dumps(described))
    script = Path(__file__).with_name("vllm_engine.py")
    environment = {
        **os.environ,
        "STREAMINGLLM_VLLM_NUM_SINK_TOKENS": str(case.num_sink_tokens or ""),
        "STREAMINGLLM_VLLM_WINDOW_SIZE": str(case.window_size or ""),
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("PYTHONPATH", None)
    subprocess.run([vllm_python, script, job, answers], env=environment, check=True)
    return json_module.loads(answers.read_text())


def compare(lm: LanguageModel, case: Case, ids: list[int], answer: Any) -> dict[str, Any]:
    """Return how far vLLM's log-probabilities are from those of a stream that reads the same."""
    stream = Stream(
        lm, StreamConfig(case.num_sink_tokens, case.window_size, eviction_grain=_BLOCK_SIZE)
    )
    fed = torch.tensor([*ids, *answer["token_ids"][:-1]])
    first = 0 if case.of_prompt else len(ids) - 1
    if first:
        stream.feed(fed[:first], logits="none")
    logprobs = stream.feed(fed[first:]).float().log_softmax(dim=-1)
    tops = [*answer["prompt_top"][1:], *answer["top"]]
    differences = [_difference(row, top) for row, top in zip(logprobs, tops, strict=True)]
    same = sum(int(row.argmax()) == top[0][0] for row, top in zip(logprobs, tops, strict=True))
    return {
        "positions": len(tops),
        "same_argmax": same,
        "most_logprob_difference": max(differences),
        "mean_of_most_difference_of_each_position": statistics.fmean(differences),
    }


def _difference(logprobs: Tensor, top: list[tuple[int, float]]) -> float:
    """Return the largest difference among the likeliest tokens of one position."""
    tokens = torch.tensor([token for token, _ in top])
    return float((logprobs[tokens] - torch.tensor([value for _, value in top])).abs().max())


def run_case(
    lm: LanguageModel, vllm_python: Path, folder: Path, text: list[int], case: Case
) -> dict[str, Any]:
    """Generate, compare, and count blocks."""
    prompts = [text[37 * k : 37 * k + count] for k, count in enumerate(case.prompts)]
    found = generate(vllm_python, folder, case, prompts)
    answers = zip(prompts, found["answers"], strict=True)
    blocks = list(found["blocks"].values())
    return {
        **asdict(case),
        "requests": [compare(lm, case, ids, answer) for ids, answer in answers],
        "answers": [" ".join(map(str, answer["token_ids"])) for answer in found["answers"]],
        "most_blocks": [max(each) for each in blocks],
        "blocks_of_last_half": [sorted(set(each[len(each) // 2 :])) for each in blocks],
        "preemptions": [*found["preemptions"].values()],
        "seconds": sum(found["seconds"]["steps"]),
        "vllm": found["versions"]["vllm"],
    }


def speed(vllm_python: Path, folder: Path, text: list[int], rounds: int) -> dict[str, Any]:
    """Return seconds of a prompt and of a decode step, with and without the plugin, in turns."""
    with_plugin = [
        Case(f"prompt of {count:,}", (count,), 100, window_size=992, chunk=1024)
        for count in (900, 4000)
    ]
    # Without the plugin vLLM reserves blocks for the longest request.
    dense: dict[str, Any] = {
        "num_sink_tokens": 0,
        "window_size": 0,
        "options": {"max_model_len": 8192},
    }
    found: dict[str, dict[str, list[float]]] = {}
    for _ in shown(range(rounds), "rounds of speed"):
        for case in with_plugin:
            for mode, each in (("with", case), ("without", replace(case, **dense))):
                answer = generate(vllm_python, folder, each, [text[: case.prompts[0]]])
                steps = answer["seconds"]["steps"]
                chunks = -(-case.prompts[0] // case.chunk)
                times = found.setdefault(case.name, {})
                times.setdefault(f"prompt {mode}", []).append(sum(steps[:chunks]))
                times.setdefault(f"step {mode}", []).append(statistics.median(steps[chunks:]))
    return {
        name: {
            what: {"median_seconds": statistics.median(seconds), "seconds": seconds}
            for what, seconds in times.items()
        }
        for name, times in found.items()
    }


def main(
    vllm_python: Annotated[Path, typer.Option(help="Python that has vLLM and the plugin.")],
    only: Annotated[str, typer.Option(help="Run the cases whose names contain this.")] = "",
    speed_rounds: Annotated[int, typer.Option(help="Rounds of the comparison of speed.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Compare the default model under both; keep what the file has of other cases.

    Example: python -m benchmarks.vllm_plugin --vllm-python v/bin/python --json results.json
    """
    lm = load_model("smollm2-135m-instruct", dtype="float32")
    text = read_tokens(lm, open_documents("pydoc"), 10_000).tolist()
    results = _read(json)
    with tempfile.TemporaryDirectory() as folder:
        lm.model.save_pretrained(folder)
        for case in shown([case for case in CASES if only in case.name], "cases"):
            found = run_case(lm, vllm_python, Path(folder), text, case)
            results["cases"][case.name] = {**found, **run_record(seed=0)}
            write_json(json, results) if json != "-" else None
        if speed_rounds:
            results["speed"] = {
                **speed(vllm_python, Path(folder), text, speed_rounds),
                **run_record(seed=0),
            }
    write_json(json, results)


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    empty: dict[str, Any] = {"model": "smollm2-135m-instruct", "dtype": "float32", "cases": {}}
    return json_module.loads(path.read_text()) if path.is_file() else empty


if __name__ == "__main__":
    typer.run(main)
