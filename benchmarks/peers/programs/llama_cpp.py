"""llama.cpp through llama-cpp-python, with flash attention.

`discard-one` is the paper's rule: each step drops one token and shifts those after it.
`discard-half` drops half the window when the cache is full, as llama.cpp's own programs do.
"""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import Any

from benchmarks.peers.programs.protocol import (
    WARM_UP_STEPS,
    Peer,
    Settings,
    milliseconds,
    serve,
)

FORMATS = {"int4": "Q4_0", "int8": "Q8_0", "bfloat16": "BF16"}
BATCH_TOKENS = 512


class LlamaCpp(Peer):
    """The rules `dense`, `discard-one` and `discard-half`."""

    packages = ("llama-cpp-python",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.numpy: Any = importlib.import_module("numpy")
        self.llama: Any = importlib.import_module("llama_cpp")
        self.llama.llama_backend_init()
        path = Path(settings.converted) / f"{FORMATS[settings.weights]}.gguf"
        self.model = self.llama.llama_model_load_from_file(
            str(path).encode(), self.llama.llama_model_default_params()
        )
        parameters = self.llama.llama_context_default_params()
        parameters.n_ctx = settings.cache_size
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.flash_attn_type = self.llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = self.llama.llama_init_from_model(self.model, parameters)
        self.memory = self.llama.llama_get_memory(self.context)
        vocabulary = self.llama.llama_model_get_vocab(self.model)
        self.vocab_size = self.llama.llama_vocab_n_tokens(vocabulary)

    @property
    def num_cached(self) -> int:
        """Tokens in the cache."""
        return int(self.llama.llama_memory_seq_pos_max(self.memory, 0)) + 1

    def clear(self) -> None:
        self.llama.llama_memory_clear(self.memory, True)

    def crop(self, num_tokens: int) -> None:
        self.llama.llama_memory_seq_rm(self.memory, 0, num_tokens, -1)

    def feed(self, tokens: list[int]) -> int:
        ids = (self.llama.llama_token * len(tokens))(*tokens)
        for first in range(0, len(tokens), BATCH_TOKENS):
            part = ids[first : first + BATCH_TOKENS]
            batch = (self.llama.llama_token * len(part))(*part)
            status = self.llama.llama_decode(
                self.context, self.llama.llama_batch_get_one(batch, len(part))
            )
            if status != 0:
                raise RuntimeError(f"llama_decode={status}: must be 0")
        logits = self.llama.llama_get_logits_ith(self.context, -1)
        return int(self.numpy.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())

    def step(self) -> None:
        if self.settings.rule == "discard-one":
            self.discard(1)
        super().step()

    def discard(self, num_tokens: int) -> None:
        """Drop the oldest tokens of the window and shift those after them."""
        first = self.settings.num_sink_tokens
        self.llama.llama_memory_seq_rm(self.memory, 0, first, first + num_tokens)
        self.llama.llama_memory_seq_add(self.memory, 0, first + num_tokens, -1, -num_tokens)

    def decode(self, count: int) -> dict[str, Any]:
        if self.settings.rule != "discard-half":
            return super().decode(count)
        # The cost grows evenly over a cycle: its two ends, in pairs, stand for the whole.
        missing = self.settings.cache_size - count - WARM_UP_STEPS - self.num_cached
        if missing < 0:
            self.crop(self.num_cached + missing)
        else:
            self.feed(self.settings.text[:missing])
        end = super().decode(count)["milliseconds"]
        half = self.settings.window_size // 2
        self.discard(half)
        stall = milliseconds(self.step)
        begin = super().decode(count)["milliseconds"]
        share = (stall - statistics.median(begin)) / half
        amortised = [(a + b) / 2 + share for a, b in zip(begin, end, strict=True)]
        return {"milliseconds": amortised, "stall_milliseconds": stall}


if __name__ == "__main__":
    serve(LlamaCpp)
