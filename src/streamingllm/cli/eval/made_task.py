"""Tasks that need no model, made before one is loaded."""

from __future__ import annotations

from typing import Any

from streamingllm.cli.eval.command import BuildTask


def made_task(name: str, *args: Any, **options: Any) -> BuildTask:
    """Make a task now, so that wrong options are refused before the model is loaded."""
    from streamingllm.evaluation.tasks.registry import task_class

    task = task_class(name)(*args, **options)
    return lambda lm: task
