"""What tests of tasks share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from streamingllm import LanguageModel
from streamingllm.evaluation.caches import parse_caches
from streamingllm.evaluation.evaluation import Evaluation, evaluate
from streamingllm.evaluation.tasks.base import Part, Task
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_llama import new_llama

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@cache
def byte_lm() -> LanguageModel:
    """A random model with one token per byte and a chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    model = new_llama(vocab_size=len(tokenizer), initializer_range=0.3, eos_token_id=None)
    return LanguageModel(model, tokenizer, "tiny", "test")


def run(task: Task, *caches: str, **options: Any) -> Evaluation:
    return evaluate(task, byte_lm(), parse_caches(caches), **options)


def parts_of(task: Task, cache: str) -> Sequence[Part]:
    """The parts of the only sample."""
    (sample,) = run(task, cache).samples[cache]
    return sample


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
