"""Who takes part: a program, the weights it runs and what it does when its cache is full."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

OURS = "ours"
PROGRAMS = (OURS, "llama_cpp", "openvino", "attention_sinks", "transformers")


class PeerError(Exception):
    """A peer cannot be had or failed; the message is the reason, in one line."""


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Args:
        program: module in `benchmarks.peers.programs`; its environment has the same name.
        weights: `int4`, `int8`, `bfloat16` or `float32`.
        rule: what happens when the cache is full.
    """

    program: str
    weights: str
    rule: str

    @property
    def name(self) -> str:
        """Short name, as in `llama_cpp-int4-dense`."""
        return f"{self.program}-{self.weights}-{self.rule}"

    @property
    def reads(self) -> bool:
        """Whether it takes part in reading: each program once per kind of weights."""
        return self.program == OURS or self.rule == "dense"


def _every(program: str, weights: tuple[str, ...], rules: tuple[str, ...]) -> list[Contestant]:
    return [Contestant(program, kind, rule) for kind, rule in product(weights, rules)]


CONTESTANTS = (
    *_every(OURS, ("int4", "int8", "bfloat16", "float32"), ("sinks",)),
    *_every("llama_cpp", ("int4", "int8", "bfloat16"), ("dense", "discard-half", "discard-one")),
    *_every("openvino", ("int4", "int8"), ("dense", "evict")),
    *_every("transformers", ("bfloat16", "float32"), ("dense",)),
    *_every("attention_sinks", ("float32",), ("sinks",)),
)


def chosen(only: list[str]) -> list[Contestant]:
    """Return those whose name or program is in `only`, or all if that is empty.

    Raises:
        PeerError: a name fits nobody.
    """
    known = {name for each in CONTESTANTS for name in (each.name, each.program)}
    for name in only:
        if name not in known:
            raise PeerError(f"only={name!r}: must be one of {', '.join(sorted(known))}")
    return [each for each in CONTESTANTS if not only or each.name in only or each.program in only]
