"""Tasks by name, each imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from streamingllm.checks import check_choice

if TYPE_CHECKING:
    from streamingllm.evaluation.tasks.base import Task

_HOMES = {
    "perplexity": "perplexity.PerplexityTask",
    "streameval": "streameval.StreamEvalTask",
    "arc-stream": "arc_stream.ArcStreamTask",
    "longeval": "longeval.LongEvalTask",
    "passkey": "passkey.PasskeyTask",
    "gsm8k": "gsm8k.Gsm8kTask",
    "mt-bench": "mt_bench.MtBenchTask",
    "qmsum": "qmsum.QmsumTask",
}
TASKS = tuple(_HOMES)


def task_class(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        ConfigError: there is none of that name.
    """
    check_choice("task", name, TASKS)
    module, _, attribute = _HOMES[name].partition(".")
    found: type[Task] = getattr(
        importlib.import_module(f"streamingllm.evaluation.tasks.{module}"), attribute
    )
    return found
