"""Let a model answer questions about long conversations: window, memory, evidence, full context.

Each conversation is heard once by a `Listener`; every question goes to a fork. LoCoMo's evidence
is given in the arm "evidence". The full context is measured where the model was trained for its
length. Intervals are by conversation.

Run: `python -m benchmarks.answers --json benchmarks/results/answers.json`
Source: Maharana et al., ACL 2024 (LoCoMo); Wu et al., ICLR 2025 (LongMemEval). Deviation: words are
not stemmed for the token F1.
"""

from __future__ import annotations

import json as json_files
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.locomo_data import FILE, LocomoConversation, read_locomo
from benchmarks.progress import shown
from streamingllm import LanguageModel, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.bootstrap import estimate, sums_of
from streamingllm.memory import Listener, Memory, Recalled

SYSTEM = "You answer questions about a conversation in a few words."
_ADVERSARIAL = 5
_MAX_ANSWER_TOKENS = 24
_SESSION = "told"


@dataclass(frozen=True)
class Line:
    """One line of a conversation."""

    id: str
    speaker: str
    text: str
    seconds: float


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and ids of the lines that answer it, if they are known."""

    question: str
    answer: str
    evidence: frozenset[str]


@dataclass(frozen=True)
class Told:
    """A conversation and questions about it."""

    lines: tuple[Line, ...]
    asked: tuple[Asked, ...]


class GivenListener(Listener):
    """Recall what it is given instead of what it finds."""

    given: Sequence[Recalled] = ()

    def recall(self, question: str) -> list[Recalled]:
        return list(self.given) or super().recall(question)


def locomo(conversation: LocomoConversation, num_questions: int, seed: int) -> Told:
    """Return a conversation with some of its questions that have an answer."""
    lines = [Line(t.id, t.speaker, t.text, t.seconds) for t in conversation.turns]
    asked = [
        Asked(question.text, question.answer, question.evidence)
        for question in conversation.questions
        if question.category != _ADVERSARIAL and question.answer
    ]
    chosen = random.Random(seed).sample(asked, min(num_questions, len(asked)))
    return Told(tuple(lines), tuple(chosen))


def longmemeval(file: Path) -> Iterator[Told]:
    """Yield the histories of a sample with their questions."""
    for record in json_files.loads(file.read_text())["data"]:
        lines = []
        for number, turn in enumerate(record["conversation"]):
            said_at = datetime.strptime(turn["date"], "%Y/%m/%d (%a) %H:%M").replace(tzinfo=UTC)
            line = Line(str(number), turn["role"], turn["content"], said_at.timestamp())
            lines.append(line)
        asked = [
            Asked(question["question"], str(question["answer"]), frozenset())
            for question in record["questions"]
        ]
        yield Told(tuple(lines), tuple(asked))


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of words.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, section 6.1.
    """
    said, wanted = (
        Counter(re.findall(r"[^\W_]+", re.sub(r"\b(a|an|the|and)\b", " ", text.lower())))
        for text in (answer, reference)
    )
    num_common = (said & wanted).total()
    return 2 * num_common / (said.total() + wanted.total()) if num_common else 0.0


def hear(lm: LanguageModel, memory: Memory, told: Told, cache_size: int) -> GivenListener:
    """Return a listener that has heard a conversation."""
    listener = GivenListener(
        lm, memory, _SESSION, system_prompt=SYSTEM, cache_size=cache_size, recall_share=0.4
    )
    for line in told.lines:
        listener.hear(line.text, speaker=line.speaker, message_id=line.id, time=line.seconds)
    return listener


def score(listener: Listener, asked: Asked, *, recalls: bool) -> tuple[float, float]:
    """Return the token F1 of an answer, and nats a token of the right one."""
    found = listener.ask(asked.question, recalls=recalls)
    nats = listener.ask(asked.question, recalls=recalls).nats_per_token(asked.answer)
    answer = "".join(found.answer(_MAX_ANSWER_TOKENS)).strip().partition("\n")[0]
    return token_f1(answer, asked.answer), nats


def measure(lm: LanguageModel, told: Told, cache_size: int) -> dict[str, list[tuple[float, float]]]:
    """Return the scores of each question by arm."""
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        listener = hear(lm, memory, told, cache_size)
        pieces = memory.messages(_SESSION)
        for asked in told.asked:
            listener.given = ()
            found["window"].append(score(listener, asked, recalls=False))
            found["memory"].append(score(listener, asked, recalls=True))
            listener.given = [piece for piece in pieces if piece.message_id in asked.evidence]
            if listener.given:
                found["evidence"].append(score(listener, asked, recalls=True))
        num_tokens = listener.stream.num_seen_tokens
    if num_tokens + 256 <= lm.model.config.get_text_config().max_position_embeddings:
        with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "m.db") as memory:
            full = hear(lm, memory, told, num_tokens + 256)
            found["full context"] = [score(full, asked, recalls=False) for asked in told.asked]
    return found


def report(
    measured: Sequence[Mapping[str, Sequence[tuple[float, float]]]], seed: int
) -> dict[str, Any]:
    """Return means by arm, with intervals by conversation."""
    arms = dict.fromkeys(arm for scores in measured for arm in scores)
    rows: dict[str, Any] = {}
    for arm in arms:
        scored = [scores[arm] for scores in measured if arm in scores]
        rows[arm] = {"questions": sum(map(len, scored))}
        for at, name in enumerate(("token_f1", "nats_per_answer_token")):
            sums = sums_of([(sum(row[at] for row in some), len(some)) for some in scored])
            rows[arm][name] = estimate(sums, seed=seed).to_json()
    return rows


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")] = FILE.parent,
    model: Annotated[str, typer.Option(help="Name or folder.")] = "smollm2-135m-instruct",
    quantize: Annotated[str, typer.Option(help="Weights: none, int8 or int4.")] = "none",
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "bfloat16",
    questions: Annotated[int, typer.Option(help="Of each of LoCoMo's conversations.")] = 40,
    cache_size: Annotated[int, typer.Option(help="Tokens that are visible.")] = 1024,
    seed: Annotated[int, typer.Option(help="Of the choice of questions, and intervals.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Ask about every conversation, and write the results after each."""
    lm = load_model(model, dtype=dtype, quantize=quantize)
    sets = {
        "LoCoMo": [locomo(told, questions, seed) for told in read_locomo(data / "locomo10.json")],
        "LongMemEval": [*longmemeval(data / "longmemeval-oracle-sample.json")],
    }
    results: dict[str, Any] = {"model": lm.name, "dtype": dtype, "quantize": quantize}
    results["cache_size"] = cache_size
    for name, conversations in sets.items():
        measured = []
        for told in shown(conversations, name):
            measured.append(measure(lm, told, cache_size))
            results[name] = report(measured, seed)
            write_json(json, {**results, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
