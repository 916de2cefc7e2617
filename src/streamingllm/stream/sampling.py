"""Sampling parameters: how the tokens of a text are chosen, and when the text ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError, UnsupportedFeatureError
from streamingllm.stream.grammar import Grammar

MAX_LOGPROBS = 20
_MAX_SEED = 2**63 - 1
_MAX_BIAS = 1e30  # finite in every dtype of logits
_RANGES = {  # least, greatest, and whether the least is excluded
    "temperature": (0.0, 100.0, False),
    "top_p": (0.0, 1.0, True),
    "min_p": (0.0, 1.0, False),
    "repetition_penalty": (0.0, 10.0, True),
    "frequency_penalty": (-10.0, 10.0, False),
    "presence_penalty": (-10.0, 10.0, False),
}


@dataclass(frozen=True)
class SamplingParams:
    """Describe how a text is generated; the default is greedy, 256 tokens at most.

    Args:
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: sample among the k most probable tokens; 0 for all.
        top_p: sample among the most probable tokens that together have this probability.
        min_p: drop tokens whose probability is below this share of the greatest.
        repetition_penalty: divide the scores of recent tokens, of prompt or text, by it; 1 for
            none.
        frequency_penalty: lower the score of a token by this for each time it was generated
            among the last `window_size` tokens.
        presence_penalty: lower the score of a token by this if it was generated among them.
        logit_bias: number to add to the score of each token id.
        max_new_tokens: tokens to generate at most; None is endless, 0 only reads the prompt.
        seed: makes sampling repeatable, whatever other streams do; None draws one.
        stop_strings: the text ends before the first of them.
        stop_token_ids: the text ends with the first of these, in addition to the model's eos.
        ignore_eos: the model's eos does not end the text.
        shown_token_ids: special tokens whose text is part of the text.
        grammar: grammar of the text; the text ends with it.
        n: samples to generate from one prompt.
        logprobs: number of most probable tokens to report for each token, with the logarithms of
            their probabilities. With 0 the generated token alone is reported, with None nothing.

    Raises:
        ConfigError: a value is out of range or of another type.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    max_new_tokens: int | None = 256
    seed: int | None = None
    stop_strings: Sequence[str] = ()
    stop_token_ids: Collection[int] = ()
    ignore_eos: bool = False
    shown_token_ids: Collection[int] = ()
    grammar: Grammar | None = None
    n: int = 1
    logprobs: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_integers()
        stops: Iterable[object] = self.stop_strings
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise ConfigError(
                f"stop_strings={self.stop_strings!r} is no sequence of strings of one character "
                "or more; pass a list of strings"
            )
        # Copies that nobody can change, so that parameters can be keys.
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        object.__setattr__(self, "stop_token_ids", tuple(sorted({*self.stop_token_ids})))
        object.__setattr__(self, "shown_token_ids", tuple(sorted({*self.shown_token_ids})))
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        if self.grammar is not None and self.ignore_eos:
            raise ConfigError(
                "ignore_eos=True contradicts a grammar, which ends the text; set it to False"
            )

    @property
    def is_greedy(self) -> bool:
        """Return whether the most probable token is chosen, whatever came before."""
        return self.temperature == 0.0 and not (
            self.reads_recent or self.reads_generated or self.logit_bias
        )

    @property
    def reads_recent(self) -> bool:
        """Return whether a choice depends on the stream's recent tokens."""
        return self.repetition_penalty != 1.0

    @property
    def reads_generated(self) -> bool:
        """Return whether a choice depends on the tokens generated before."""
        return self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    def check_tokens_only(self) -> None:
        """Refuse what needs a tokenizer or an engine, for streams of token ids.

        Raises:
            UnsupportedFeatureError: `stop_strings`, `grammar`, `n` or `logprobs` is set.
        """
        unset = {"stop_strings": (), "grammar": None, "n": 1, "logprobs": None}
        for name, default in unset.items():
            value = getattr(self, name)
            if value != default:
                raise UnsupportedFeatureError(
                    f"{name}={value!r} is not supported by a stream of token ids; use "
                    "Engine.generate"
                )

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON-able values; `from_json` reads them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        grammar = None if self.grammar is None else asdict(self.grammar)
        return values | {
            "logit_bias": [[token, bias] for token, bias in self.logit_bias.items()],
            "stop_strings": list(self.stop_strings),
            "stop_token_ids": list(self.stop_token_ids),
            "shown_token_ids": list(self.shown_token_ids),
            "grammar": grammar,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SamplingParams:
        """Return the parameters that `to_json` wrote.

        Raises:
            ConfigError: a value is out of range.
        """
        grammar = values["grammar"]
        changed = {
            "logit_bias": dict(values["logit_bias"]),
            "grammar": None if grammar is None else Grammar(**grammar),
        }
        return cls(**{**values, **changed})

    def _check_numbers(self) -> None:
        for name, (low, high, is_open) in _RANGES.items():
            _check_number(name, getattr(self, name), low, high, is_open)
        for token, bias in self.logit_bias.items():
            check_integer("logit_bias", token, 0)
            _check_number(f"logit_bias[{token}]", bias, -_MAX_BIAS, _MAX_BIAS)

    def _check_integers(self) -> None:
        check_integer("top_k", self.top_k, 0)
        check_integer("n", self.n, 1)
        if self.max_new_tokens is not None:
            check_integer("max_new_tokens", self.max_new_tokens, 0)
        if self.seed is not None:
            check_integer("seed", self.seed, 0, _MAX_SEED)
        if self.logprobs is not None:
            check_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        for name in ("stop_token_ids", "shown_token_ids"):
            for token in getattr(self, name):
                check_integer(name, token, 0)
        if not isinstance(self.ignore_eos, bool):
            raise ConfigError(f"ignore_eos={self.ignore_eos!r} is no bool; set True or False")


def _check_number(name: str, value: object, low: float, high: float, is_open: bool = False) -> None:
    """Refuse a value that is no number from `low` (not itself if `is_open`) to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name}={value!r} is no number; choose a number >= {low:g}")
    if not low <= value <= high or (is_open and value == low):
        bounds = f"greater than {low:g}, at most {high:g}" if is_open else f"{low:g} to {high:g}"
        raise ConfigError(f"{name}={value!r} is out of range; choose a number {bounds}")


GREEDY = SamplingParams()
