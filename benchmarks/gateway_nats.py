"""Compare rolled-over prompts with a stream of the same model: nats, and tokens that were read.

Run: `python -m benchmarks.gateway_nats TRANSCRIPT --limit 1024 --name NAME --json FILE`

`gateway_turns --transcript` wrote TRANSCRIPT. Each question and each answer of it is scored twice,
teacher-forced: by a dense model whose prompt is exactly what the server was sent, and by a stream
that has read all of the transcript. The stream keeps the system prompt as sinks, and a window of
the rest of the limit. The server has chosen its answers itself, which favours the dense model;
the questions are not its own. Results join those of `gateway_turns` in FILE.
"""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.gateway_results import WARMING, answered, prefilled, write_under
from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.bootstrap import paired_difference, sums_of
from streamingllm.evaluation.scoring import feed_scored

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Piece:
    """Hold text that a stream reads, and the kind under which it is scored; "" for none."""

    text: str
    kind: str = ""


class Renderer:
    """Write messages as the model reads them.

    Args:
        lm: whose chat template is used.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._tokenizer = lm.tokenizer

    def prompt(self, messages: Messages) -> str:
        """Return the text that an answer to messages follows."""
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def ids(self, text: str) -> Tensor:
        """Return the tokens of a text in which marks are marks."""
        return torch.tensor(
            self._tokenizer.encode(text, add_special_tokens=False), dtype=torch.int64
        )


def pieces_of(text: str, question: str, answer: str) -> list[Piece]:
    """Return the end of a prompt in pieces, the question and the answer scored.

    Args:
        text: that ends with the question and the marks after it.
        question: of the user.
        answer: that follows.
    """
    before, _, after = text.rpartition(question)
    return [Piece(before), Piece(question, "questions"), Piece(after), Piece(answer, "answers")]


def scores(stream: Stream, renderer: Renderer, pieces: list[Piece]) -> dict[str, tuple[float, int]]:
    """Feed pieces and return the nats and the tokens of each kind."""
    found = {}
    for piece in pieces:
        ids = renderer.ids(piece.text)
        if not len(ids):
            continue
        nll = feed_scored(stream, ids)
        if piece.kind:
            found[piece.kind] = (float(nll.sum()), len(ids))
    return found


@dataclass
class Turn:
    """Hold a turn: all messages up to its question, those that were sent, and its answer."""

    history: Messages
    sent: Messages
    answer: str

    @property
    def question(self) -> str:
        """The words of the user; recalled text may stand before them in what was sent."""
        return str(self.history[-1]["content"])

    @property
    def is_rolled(self) -> bool:
        """Return whether messages were left out."""
        return len(self.sent) < len(self.history)


def turns_of(transcript: dict[str, Any]) -> list[Turn]:
    """Return the turns of a transcript, each with the request that was answered."""
    history, found = transcript["history"], []
    asked = answered(transcript["asked"])
    sent = [one["messages"] for one in asked if one["max_tokens"] != WARMING]
    answers = [n for n, message in enumerate(history) if message["role"] == "assistant"]
    for number, at in enumerate(answers):
        assert str(sent[number][-1]["content"]).endswith(str(history[at - 1]["content"]))
        found.append(Turn(history[:at], sent[number], str(history[at]["content"])))
    return found


def dense_scores(lm: LanguageModel, renderer: Renderer, turn: Turn) -> dict[str, tuple[float, int]]:
    """Score a turn by a dense model that reads the prompt that was sent."""
    stream = Stream(lm, StreamConfig(strategy="dense", num_sink_tokens=0))
    text = renderer.prompt(turn.sent)
    return scores(stream, renderer, pieces_of(text, turn.question, turn.answer))


def stream_scores(
    lm: LanguageModel, renderer: Renderer, turns: list[Turn], limit: int
) -> tuple[list[dict[str, tuple[float, int]]], int]:
    """Score all turns by one stream; return that and the tokens that it has seen."""
    head = turns[0].history[0]
    read = renderer.prompt(turns[0].history).partition(str(head["content"]))
    num_sinks = len(renderer.ids(read[0] + read[1]))
    stream = Stream(lm, StreamConfig(num_sinks, limit - num_sinks))
    found, done = [], ""
    for turn in shown(turns, "stream"):
        text = renderer.prompt(turn.history)
        assert text.startswith(done), "the template changes what was said before"
        pieces = pieces_of(text[len(done) :], turn.question, turn.answer)
        found.append(scores(stream, renderer, pieces))
        done = text + turn.answer
    return found, stream.num_seen_tokens


def lost(
    stream: list[dict[str, tuple[float, int]]], dense: list[dict[str, tuple[float, int]]]
) -> dict[str, Any]:
    """Return, for each kind, how many nats a token costs more without the stream."""
    found = {}
    for kind in ("questions", "answers"):
        pairs = [(a[kind], b[kind]) for a, b in zip(stream, dense, strict=True) if kind in a]
        ours, theirs = (sums_of([pair[side] for pair in pairs]) for side in (0, 1))
        tokens = float(ours[:, 1].sum())
        found[kind] = {
            "tokens": int(tokens),
            "stream_nats_per_token": float(ours[:, 0].sum()) / tokens if tokens else None,
            "rollover_nats_per_token": float(theirs[:, 0].sum()) / tokens if tokens else None,
            "lost": paired_difference(ours, theirs, seed=0).to_json() if tokens else None,
        }
    return found


def estimated_prefill(renderer: Renderer, asked: list[dict[str, Any]]) -> dict[str, int]:
    """Return the tokens that a server reads if it keeps the prompt before, and nothing else."""
    before: list[int] = []
    counts = {"turns": 0, "warming": 0}
    for one in shown(asked, "prompts"):
        ids = renderer.ids(renderer.prompt(one["messages"])).tolist()
        same = next(
            (n for n, pair in enumerate(zip(ids, before, strict=False)) if pair[0] != pair[1]),
            min(len(ids), len(before)),
        )
        # The last token is read in any case, because the answer follows from it.
        read = len(ids) - min(same, len(ids) - 1)
        counts["warming" if one["max_tokens"] == WARMING else "turns"] += read
        before = ids
    return counts


def prefill(renderer: Renderer, asked: list[dict[str, Any]], num_tokens: int) -> dict[str, Any]:
    """Return tokens that the server read for each token of the transcript, and who counted them."""
    counted = prefilled([one.get("usage") for one in asked])
    read = sum(estimated_prefill(renderer, asked).values()) if counted is None else counted
    return {
        "transcript_tokens": num_tokens,
        "prefilled_tokens_with_warming": read,
        "prefilled_by": "estimate" if counted is None else "usage.cached_tokens",
        "prefilled_for_a_token_of_the_transcript": read / num_tokens,
    }


def main(
    transcript: Annotated[Path, typer.Argument(help="What `gateway_turns --transcript` wrote.")],
    limit: Annotated[int, typer.Option(help="Tokens of the server's context.")] = 1024,
    name: Annotated[str, typer.Option(help="Of the server, among the results.")] = "upstream",
    json: Annotated[Path | None, typer.Option(help="Results of `gateway_turns`.")] = None,
) -> None:
    """Score a transcript of the default model.

    Example: python -m benchmarks.gateway_nats talk.json --name vllm --json results.json
    """
    lm = load_model("smollm2-135m-instruct", dtype="float32")
    told = json_module.loads(transcript.read_text())
    renderer, turns = Renderer(lm), turns_of(told)
    dense = [dense_scores(lm, renderer, turn) for turn in shown(turns, "dense")]
    stream, num_tokens = stream_scores(lm, renderer, turns, limit)
    rolled = [n for n, turn in enumerate(turns) if turn.is_rolled]
    found = {
        **prefill(renderer, answered(told["asked"]), num_tokens),
        "nats": {
            "model": "smollm2-135m-instruct, float32",
            "limit": limit,
            "all_turns": lost(stream, dense),
            "turns_with_messages_left_out": lost(
                [stream[n] for n in rolled], [dense[n] for n in rolled]
            ),
        },
        **{f"nats_{key}": value for key, value in run_record(seed=0).items()},
    }
    if json is None:
        typer.echo(json_module.dumps(found, indent=2))
    else:
        write_under(json, name, found)


if __name__ == "__main__":
    typer.run(main)
