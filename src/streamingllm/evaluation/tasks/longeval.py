"""LongEval's lines: one question about one of some hundred named lines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

from streamingllm.checks import check_choice, check_integer
from streamingllm.evaluation.chat_frame import TEMPLATES
from streamingllm.evaluation.jsonl import read_jsonl
from streamingllm.evaluation.tasks.prompt_task import Prompt, PromptTask

HEADER = (
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' "
    "and contains a '<REGISTER_CONTENT>' at the end of the line as a numerical value. For each "
    "line index, memorize its corresponding <REGISTER_CONTENT>. At the end of the record, I will "
    "ask you to retrieve the corresponding <REGISTER_CONTENT> of a certain line index. Now the "
    "record start:\n\n"
)
MAX_VALUE = 50_000
_ADJECTIVE_WORDS = (
    "able amber aqua bold brave brief bright brisk broad calm civil clean clear clever cosmic "
    "crisp daring deep eager early earthy exact faint fair famous fancy fast fierce final "
    "firm fluent fond frosty gentle giant glad golden grand green happy hardy hasty honest "
    "humble icy ideal jolly juicy keen kind large late lively local loud lucid lucky mellow "
    "merry mighty misty modern modest narrow neat noble"
)
_NOUN_WORDS = (
    "acorn anchor apple arrow badge basin beacon bell birch bridge brook cabin candle canyon "
    "castle cedar circle cloud comet coral cradle desert dolphin dragon eagle ember engine "
    "falcon feather fern flute forest fossil galaxy garden glacier hammer harbor hazel island "
    "jungle kettle kernel ladder lantern lemon lion magnet maple marble meadow mirror nectar "
    "needle oasis ocean orchid otter pebble pepper"
)
_ADJECTIVES, _NOUNS = _ADJECTIVE_WORDS.split(), _NOUN_WORDS.split()


def generate_prompt(num_lines: int, seed: str) -> Prompt:
    """Make a prompt in LongEval's form, with other names of lines.

    Args:
        num_lines: lines of the record, at most the number of distinct names.
        seed: of names, numbers and the question.
    """
    choose = random.Random(seed)
    names = [f"{a}-{b}" for a in _ADJECTIVES for b in _NOUNS]
    names = choose.sample(names, num_lines)
    values = [choose.randint(1, MAX_VALUE) for _ in names]
    target = choose.randrange(num_lines)
    lines = "".join(
        f"line {name}: REGISTER_CONTENT is <{value}>\n"
        for name, value in zip(names, values, strict=True)
    )
    return _prompt(f"{HEADER}{lines}{_question(names[target])}", names[target], values[target])


def _question(name: str) -> str:
    return (
        f"\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line {name}? I need "
        "the number. "
    )


def _prompt(text: str, name: str, value: int) -> Prompt:
    lead = f"The <REGISTER_CONTENT> in line {name} is <"
    return Prompt(text, value, lead=lead, gold=str(value))


class LongEvalTask(PromptTask):
    """Ask for the number of one named line of a long record.

    Args:
        num_samples: prompts to make; None takes all of `data`, or 10.
        num_lines: lines of a prompt that is made.
        data: LongEval's own JSON lines with prompt and expected_number; None makes prompts.
        template: `chat` or `raw`.
        seed: of the prompts that are made.

    Source: https://github.com/DachengLi1/LongChat, longeval. Deviation: names of lines of prompts
    made here come from word lists of our own.
    """

    name: ClassVar[str] = "longeval"

    def __init__(
        self,
        num_samples: int | None = None,
        num_lines: int = 200,
        *,
        data: Path | None = None,
        template: str = "chat",
        seed: int = 0,
    ) -> None:
        if num_samples is not None:
            check_integer("samples", num_samples, 1)
        check_integer("lines", num_lines, 1, len(_ADJECTIVES) * len(_NOUNS))
        check_choice("template", template, TEMPLATES)
        fields = ("prompt", "expected_number", "random_idx")
        self._rows = None if data is None else read_jsonl(data, fields, num_samples)
        self._num_samples = num_samples or 10 if self._rows is None else len(self._rows)
        self.num_lines = num_lines
        self.data = data
        self.template = template
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """Prompts."""
        return self._num_samples

    def settings(self) -> dict[str, Any]:
        """Return data or size, template and seed."""
        made = {"lines": self.num_lines, "seed": self.seed}
        source = made if self.data is None else {"data": self.data.name}
        return {"samples": self.num_samples, "template": self.template, **source}

    def prompt(self, sample: int) -> Prompt:
        """Return the prompt of a sample."""
        if self._rows is None:
            return generate_prompt(self.num_lines, f"{self.seed}-{sample}")
        row = self._rows[sample]
        return _prompt(row["prompt"], str(row["random_idx"][0]), int(row["expected_number"]))
