"""A model of lm-evaluation-harness that reads every prompt as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from torch import Tensor

from streamingllm import LanguageModel, SamplingParams, Stream, load_model
from streamingllm.errors import ConfigError
from streamingllm.evaluation.caches import parse_cache
from streamingllm.evaluation.scoring import feed_scored
from streamingllm.models import DEFAULT_MODEL

Request = tuple[tuple[str, str], list[int], list[int]]
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


@register_model("streamingllm")
class StreamingLM(TemplateLM):
    """Score and generate with a cache of constant size; no prompt is ever truncated.

    Args:
        model: a catalog name, a hub id, a folder or a .gguf file; or a loaded model.
        cache: a word of `streamingllm eval --cache`, such as `4+1020`, `window:1024` or `dense`.
        quantize, dtype: see `load_model`.
        device: see `load_model`.
        max_gen_toks: of an answer whose task states no bound.
        batch_size: 1, because a stream has one prompt.
        max_batch_size: 1 as well.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        model: str | LanguageModel = DEFAULT_MODEL,
        cache: str = "4+1020",
        quantize: str = "auto",
        dtype: str = "auto",
        device: str = "auto",
        max_gen_toks: int = 256,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("max_batch_size", max_batch_size)):
            if value not in (None, 1, "1"):
                raise ConfigError(f"{name}={value} is not 1; a stream reads one prompt at a time")
        self._cache = parse_cache(cache)
        if self._cache.is_fresh:
            raise ConfigError(f"cache={cache!r} is for questions within a stream; choose dense")
        if isinstance(model, str):
            model = load_model(model, quantize=quantize, dtype=dtype, device=device)
        self._lm = model
        self.tokenizer = model.tokenizer
        self._max_gen_toks = max_gen_toks

    # Tokens.

    @property
    def eot_token_id(self) -> int:
        """Id of the token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """Id of the token that comes before a text without a context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Return token ids; None adds the model's first token unless the text has it already."""
        if add_special_tokens is None:
            first = self.tokenizer.bos_token
            add_special_tokens = not (first and string.startswith(first))
        ids = self._lm.encode(string, add_special_tokens=add_special_tokens)
        return [int(i) for i in ids]

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for the harness's cache of requests."""
        return self._lm.name.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages as the model's template writes them."""
        text = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        assert isinstance(text, str)
        return text

    def get_model_info(self) -> dict[str, Any]:
        """Return what results depend on, for the report of the harness."""
        lm = self._lm
        return {
            "model_source": lm.source,
            "model_cache": self._cache.label,
            "model_quantization": lm.quantization,
            "model_dtype": str(lm.model.dtype),
            "model_num_parameters": lm.model.num_parameters(),
        }

    # Requests.

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """Score continuations; those of one context share its pass."""
        contexts: dict[tuple[int, ...], list[int]] = {}
        for number, (_names, context, _continuation) in enumerate(requests):
            contexts.setdefault(tuple(context), []).append(number)
        found: dict[int, tuple[float, bool]] = {}
        for context, numbers in self._shown(contexts.items(), len(contexts), disable_tqdm):
            stream = self._fed(context)
            for number in numbers:
                names, _context, continuation = requests[number]
                found[number] = self._score(stream.fork(), self._tensor(continuation))
                self.cache_hook.add_partial("loglikelihood", names, found[number])
        return [found[number] for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts of any length, each as one stream."""
        found = []
        for request in self._shown(requests, len(requests), disable_tqdm):
            (text,) = request.args
            ids = [self.prefix_token_id, *self.tok_encode(text, add_special_tokens=False)]
            total = 0.0
            if len(ids) > 1:
                stream = Stream(self._lm.model, self._cache.config)
                total = -float(feed_scored(stream, self._tensor(ids)).double().sum())
            found.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Generate an answer to each prompt."""
        found = []
        for request in self._shown(requests, len(requests), disable_tqdm):
            text, settings = request.args
            sampling, stops = self._sampling(settings)
            answer = self._answer(self._fed(self.tok_encode(text)), sampling, stops)
            found.append(answer)
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return found

    def _answer(self, stream: Stream, sampling: SamplingParams, stops: Sequence[str]) -> str:
        """Return the text before the first stop string or token that ends texts."""
        tokens: list[int] = []
        for token in stream.generate(sampling=sampling, stop_token_ids=self._lm.eos_token_ids):
            if token in self._lm.eos_token_ids:
                break
            tokens.append(token)
            if any(stop in self._lm.decode(tokens) for stop in stops):
                break
        text = self._lm.decode(tokens)
        ends = [text.index(stop) for stop in stops if stop in text]
        return text[: min(ends)] if ends else text

    def _sampling(self, settings: Mapping[str, Any]) -> tuple[SamplingParams, Sequence[str]]:
        """Return how to generate; what has no meaning here is refused."""
        left = dict(settings)
        until = left.pop("until", None) or []
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        most = int(left.pop("max_gen_toks", self._max_gen_toks))
        chosen = {name: left.pop(name) for name in _SAMPLING if left.get(name) is not None}
        if not left.pop("do_sample", "temperature" in chosen):
            chosen = {"temperature": 0.0}
        if left:
            raise ConfigError(
                f"gen_kwargs has {', '.join(sorted(left))}; choose among until, max_gen_toks, "
                f"do_sample, {', '.join(_SAMPLING)}"
            )
        chosen.setdefault("temperature", 1.0)
        return SamplingParams(max_new_tokens=most, **chosen), stops

    def _score(self, stream: Stream, ids: Tensor) -> tuple[float, bool]:
        """Return the log-likelihood of ids, and whether each is the most probable token."""
        rows = stream.next_logits[None]
        if len(ids) > 1:
            rows = torch.cat((rows, stream.feed(ids[:-1])))
        logs = rows.float().log_softmax(-1).gather(-1, ids[:, None])
        return float(logs.double().sum()), bool((rows.argmax(-1) == ids).all())

    def _fed(self, ids: Iterable[int]) -> Stream:
        stream = Stream(self._lm.model, self._cache.config)
        stream.feed(self._tensor(list(ids)), logits="last")
        return stream

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor(ids, device=self._lm.model.device)

    def _shown(self, items: Iterable[Any], total: int, disable: bool) -> Iterable[Any]:
        from tqdm import tqdm

        shown: Iterable[Any] = tqdm(items, total=total, desc=self._cache.label, disable=disable)
        return shown
