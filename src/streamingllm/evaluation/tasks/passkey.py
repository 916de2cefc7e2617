"""Retrieve a pass key: a number somewhere in a long text of no content."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from streamingllm.checks import check_choice, check_integer
from streamingllm.evaluation.chat_frame import TEMPLATES
from streamingllm.evaluation.tasks.prompt_task import Prompt, PromptTask

HEADER = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n"
)
FILLER = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
)
QUESTION = "What is the pass key? The pass key is"


class PasskeyTask(PromptTask):
    """Ask for a number that stands at an even spread of depths in a text of fillers.

    Args:
        num_samples: prompts; the first has the key at the beginning, the last at the end.
        num_fillers: repeated lines, about 22 tokens each.
        template: `raw` or `chat`.
        seed: of the keys.

    Source: Mohtashami and Jaggi, "Landmark Attention" (arXiv 2305.16300), section 4.2.
    """

    name: ClassVar[str] = "passkey"

    def __init__(
        self, num_samples: int = 10, num_fillers: int = 200, *, template: str = "raw", seed: int = 0
    ) -> None:
        check_integer("samples", num_samples, 1)
        check_integer("fillers", num_fillers, 0)
        check_choice("template", template, TEMPLATES)
        self._num_samples = num_samples
        self.num_fillers = num_fillers
        self.template = template
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """Prompts."""
        return self._num_samples

    def settings(self) -> dict[str, Any]:
        """Return sizes, template and seed."""
        return {
            "samples": self.num_samples,
            "fillers": self.num_fillers,
            "template": self.template,
            "seed": self.seed,
        }

    def prompt(self, sample: int) -> Prompt:
        """Return the prompt of a sample."""
        key = random.Random(f"{self.seed}-{sample}").randint(1, 50_000)
        before = round(self.num_fillers * sample / max(1, self.num_samples - 1))
        info = f"The pass key is {key}. Remember it. {key} is the pass key.\n"
        text = HEADER + FILLER * before + info + FILLER * (self.num_fillers - before) + QUESTION
        return Prompt(text, key, lead="", gold=f" {key}")
