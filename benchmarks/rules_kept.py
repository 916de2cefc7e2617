"""Measure whether rules are kept while a session grows: pinned, in the window, and unpinned.

Ten rules stand in the system prompt. Each asks for one thing in an answer that a program can check.
A long text passes, and every some tokens each rule is put to the test by a question on a fork. The
model also scores an answer that keeps the rule against one that breaks it, because a small model
obeys few rules in its own words.

Arms: "pinned" (the system prompt is the sinks), "unpinned" (four sinks, the prompt rolls out), and
"window" (no sinks at all).

Run: `python -m benchmarks.rules_kept --json benchmarks/results/rules-kept.json`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer

from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, generate_text, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

TEXT = Path(__file__).parents[2] / "shared" / "data" / "moby-dick.txt"
ARMS = ("pinned", "unpinned", "window")
MAX_ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Rule:
    """A rule, a question that puts it to the test, and answers that keep and break it.

    Args:
        text: of the rule.
        question: asked on a fork.
        kept: an answer that keeps the rule.
        broken: one as long that breaks it.
        is_kept: checks a generated answer.
    """

    text: str
    question: str
    kept: str
    broken: str
    is_kept: Callable[[str], bool]


def _has(word: str) -> Callable[[str], bool]:
    return lambda answer: word.lower() in answer.lower()


def _secret(question: str, word: str, kept: str, broken: str, text: str) -> Rule:
    return Rule(text, question, kept, broken, _has(word))


RULES = (
    _secret(
        "What is your name?",
        "Zorblax",
        "My name is Zorblax.",
        "My name is Michael.",
        "Your name is Zorblax.",
    ),
    _secret(
        "Where do you work?",
        "harbour",
        "I work at the harbour.",
        "I work at the office.",
        "You work at the harbour.",
    ),
    _secret(
        "What is the password?",
        "violet",
        "The password is violet.",
        "The password is secret.",
        "If somebody asks for the password, say violet.",
    ),
    _secret(
        "When do you open?",
        "seven",
        "We open at seven.",
        "We open at nine.",
        "The shop opens at seven.",
    ),
    _secret(
        "How much is a ticket?",
        "forty",
        "A ticket is forty crowns.",
        "A ticket is ten dollars.",
        "A ticket costs forty crowns.",
    ),
    _secret(
        "Whom should I call?",
        "Odalys",
        "Please call Odalys.",
        "Please call support.",
        "People who need help should call Odalys.",
    ),
    _secret(
        "Which colour do you like best?",
        "orange",
        "I like orange best.",
        "I like blue best.",
        "Your favourite colour is orange.",
    ),
    _secret(
        "Which language should I learn?",
        "Finnish",
        "You should learn Finnish.",
        "You should learn Spanish.",
        "Recommend Finnish to those who ask for a language.",
    ),
    _secret(
        "What is the best food?",
        "barley soup",
        "The best food is barley soup.",
        "The best food is fresh pizza.",
        "Say that barley soup is the best food.",
    ),
    _secret(
        "How do you say goodbye?",
        "fair winds",
        "I say fair winds.",
        "I say see you.",
        "Say goodbye with the words fair winds.",
    ),
)
SYSTEM = "Follow these rules.\n" + "\n".join(f"{n}. {rule.text}" for n, rule in enumerate(RULES, 1))


class Session:
    """A stream that begins with the rules and reads a text within one message of a user."""

    def __init__(self, lm: LanguageModel, arm: str, cache_size: int) -> None:
        self.lm = lm
        template = lm.tokenizer.apply_chat_template
        system = [{"role": "system", "content": SYSTEM}]
        said = [*system, {"role": "user", "content": "@@@"}]
        prompt = str(template(said, tokenize=False, add_generation_prompt=True))
        before, _, self._ending = prompt.partition("@@@")
        prefix = lm.encode(before, add_special_tokens=False)
        sinks = {"pinned": len(prefix), "unpinned": 4, "window": 0}[arm]
        self.stream = Stream(lm, StreamConfig.with_cache_size(cache_size, sinks))
        self.stream.feed(prefix, logits="none")

    def asked(self, question: str) -> Stream:
        """Return a fork that has read a question."""
        fork = self.stream.fork()
        told = f"\n\n{question}{self._ending}"
        fork.feed(self.lm.encode(told, add_special_tokens=False), logits="none")
        return fork

    def obeyed(self, rule: Rule) -> bool:
        """Return whether the model's own answer keeps a rule."""
        pieces = generate_text(self.asked(rule.question), self.lm, MAX_ANSWER_TOKENS)
        return rule.is_kept("".join(pieces))

    def prefers(self, rule: Rule) -> bool:
        """Return whether a token of the answer that keeps a rule is likelier on average."""
        kept, broken = (self._nats(rule.question, text) for text in (rule.kept, rule.broken))
        return kept < broken

    def _nats(self, question: str, answer: str) -> float:
        fork = self.asked(question)
        ids = self.lm.encode(answer, add_special_tokens=False)
        predicted = torch.cat((fork.next_logits[None], fork.feed(ids)[:-1]))
        return float(F.cross_entropy(predicted.float(), ids))


def measure(
    lm: LanguageModel, arm: str, text: torch.Tensor, *, cache_size: int, every: int
) -> list[dict[str, Any]]:
    """Read a text; return the shares of rules kept before it and every so many tokens."""
    session, rows = Session(lm, arm, cache_size), []
    chunks = [text[:0], *text.split(every)]
    for chunk in shown(chunks, arm, len(chunks)):
        if len(chunk):
            session.stream.feed(chunk, logits="none")
        rows.append(
            {
                "tokens": session.stream.num_seen_tokens,
                "obeyed": sum(map(session.obeyed, RULES)) / len(RULES),
                "preferred": sum(map(session.prefers, RULES)) / len(RULES),
            }
        )
    return rows


def main(
    tokens: Annotated[int, typer.Option(help="Of the text that passes.")] = 20_000,
    every: Annotated[int, typer.Option(help="Tokens between two tests.")] = 1000,
    cache_size: Annotated[int, typer.Option(help="Tokens that are cached.")] = 1024,
    quantize: Annotated[str, typer.Option(help="Of the weights.")] = "int4",
    model: Annotated[str, typer.Option(help="Name or folder.")] = "smollm2-135m-instruct",
    data: Annotated[Path, typer.Option(help="Text; Python's reference if it is missing.")] = TEXT,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Compare the three arms."""
    lm = load_model(model, quantize=quantize)
    text = data.read_text() if data.is_file() else "\n".join(topics.values())
    ids = lm.encode(text[: 8 * tokens], add_special_tokens=False)[:tokens]
    arms = {arm: measure(lm, arm, ids, cache_size=cache_size, every=every) for arm in ARMS}
    sizes = {"cache_size": cache_size, "model": model, "quantize": quantize, "rules": len(RULES)}
    write_json(json, {**sizes, "system_prompt": SYSTEM, "arms": arms, **run_record()})


if __name__ == "__main__":
    typer.run(main)
