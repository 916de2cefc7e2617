"""The metadata of a GGUF file that describe one architecture, without its prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import GgufHeader, GgufTensor

_BLOCK = re.compile(r"blk\.(\d+)\.")
_OUTPUT = "output.weight"
_EMBEDDING = "token_embd.weight"


@dataclass(frozen=True)
class ArchitectureMetadata:
    """Read values whose keys begin with the name of a file's architecture."""

    header: GgufHeader

    def key(self, name: str) -> str:
        """Return the full key, such as `llama.block_count`."""
        return f"{self.header.architecture}.{name}"

    def has(self, name: str) -> bool:
        """Tell whether the file states a value."""
        return self.key(name) in self.header.metadata

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer, zero or more; without a default the file states one above zero."""
        value = self.header.integer(self.key(name), default or 0)
        if value < (1 if default is None else 0):
            raise self.missing(name, value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number; without a default the file has to state it."""
        if default is None and not self.has(name):
            raise self.missing(name, None)
        return self.header.number(self.key(name), default or 0.0)

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value."""
        return self.header.flag(self.key(name), default)

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        return self.header.text(self.key(name), default)

    def array(self, name: str) -> list[Any] | None:
        """Return an array, None if there is none."""
        return self.header.array(self.key(name))

    def by_layer(self, name: str) -> list[int]:
        """Return an integer of each layer, zero or more.

        Raises:
            ModelLoadError: the file does not state one for each layer, nor one for all.
        """
        stated = self.header.metadata.get(self.key(name))
        if not isinstance(stated, list):
            return [self.integer(name)] * self.num_layers
        numbers = stated[: self.num_layers]
        if len(numbers) < self.num_layers or not all(type(n) is int and n >= 0 for n in numbers):
            raise self.missing(name, stated)
        return numbers

    def missing(self, name: str, value: object) -> ModelLoadError:
        """Return the error for a value that the file should state."""
        return ModelLoadError(
            f"{self.header.path}: {self.key(name)}={value} does not describe a model; "
            "fetch the file again"
        )

    def unsupported(self, name: str, reason: str) -> ModelLoadError:
        """Return the error for a value of the file that transformers has no model for."""
        value = self.header.metadata.get(self.key(name))
        return ModelLoadError(
            f"{self.header.path}: {self.key(name)}={str(value)[:60]} {reason}; choose another file"
        )

    @cached_property
    def num_layers(self) -> int:
        """Layers of the model.

        Raises:
            ModelLoadError: the file states a number that its tensors do not have.
        """
        stated = self.integer("block_count")
        found = {int(m[1]) for t in self.header.tensors if (m := _BLOCK.match(t.name))}
        if stated != len(found) or max(found) + 1 != stated:
            raise ModelLoadError(
                f"{self.header.path}: {self.key('block_count')}={stated} but there are tensors "
                f"of {len(found)} blocks; fetch the file again"
            )
        if (predicting := self.integer("nextn_predict_layers", 0)) >= stated:
            raise self.missing("nextn_predict_layers", predicting)
        return stated - predicting

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, which may be more than there are tokens.

        Raises:
            ModelLoadError: the file has no embedding.
        """
        embedding = self.tensor(_EMBEDDING)
        if embedding is None or len(embedding.shape) != 2:
            raise ModelLoadError(
                f"{self.header.path}: has no tensor {_EMBEDDING!r} of two dimensions; choose a "
                "GGUF file of a language model"
            )
        return embedding.shape[0]

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values, in the layers that have any.

        Raises:
            ModelLoadError: the file states several numbers above zero.
        """
        heads, name = self.integer("attention.head_count"), "attention.head_count_kv"
        if not isinstance(stated := self.header.metadata.get(self.key(name)), list):
            return self.integer(name, heads) or heads
        numbers = {number for number in stated if number != 0}
        if len(numbers) != 1 or not all(type(n) is int and n > 0 for n in numbers):
            raise self.missing(name, stated)
        return int(numbers.pop())

    @property
    def head_size(self) -> int:
        """Size of a key of one head."""
        whole = self.integer("embedding_length") // self.integer("attention.head_count")
        size = self.integer("attention.key_length", whole)
        if size < 1:
            raise self.missing("attention.key_length", size)
        return size

    @property
    def is_tied(self) -> bool:
        """Tell whether the output layer is the embedding."""
        return self.tensor(_OUTPUT) is None

    def tensor(self, name: str) -> GgufTensor | None:
        """Return a tensor of the file, None if there is none."""
        return self._tensors.get(name)

    def rows(self, ending: str) -> int:
        """Return the rows of a tensor that blocks have, 0 without one."""
        tensor = self._in_blocks.get(ending)
        return 0 if tensor is None or len(tensor.shape) < 2 else tensor.shape[-2]

    def has_tensor(self, ending: str) -> bool:
        """Tell whether a tensor of a block has such a name, such as `attn_q.bias`."""
        return ending in self._in_blocks

    @cached_property
    def _tensors(self) -> dict[str, GgufTensor]:
        return {tensor.name: tensor for tensor in self.header.tensors}

    @cached_property
    def _in_blocks(self) -> dict[str, GgufTensor]:
        found: dict[str, GgufTensor] = {}
        for tensor in self.header.tensors:
            if (block := _BLOCK.match(tensor.name)) is not None:
                found.setdefault(tensor.name[block.end() :], tensor)
        return found
