"""Round a model to four bits with the activations of a few thousand tokens in view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from streamingllm.errors import InputError
from streamingllm.kernels.packing import PackedWeight
from streamingllm.models.error_feedback import round_with_feedback
from streamingllm.models.quantize import QuantizedLinear, install_layer

_SEQUENCE_TOKENS = 512
_MAX_MOMENT_BYTES = 1 << 30
_CHARACTERS_PER_TOKEN = 8  # more than any tokenizer needs for English
# Pages of Middlemarch by George Eliot (1871), in the public domain.
_NOVEL = Path(__file__).with_name("calibration.txt")


class _AllSeenError(Exception):
    """End a pass when every layer of interest has met its activations."""


@dataclass(frozen=True)
class Calibration:
    """Say in view of which tokens a model is rounded.

    Args:
        num_tokens: at most; 0 rounds each weight by itself.
        text: that they come from, all over it; None for Python's own reference and a novel.
    """

    num_tokens: int
    text: str | None = None

    @property
    def label(self) -> str:
        """A name that another choice of tokens does not have, for files."""
        if self.text is None:
            return f"{self.num_tokens}-reference-and-novel"
        return f"{self.num_tokens}-{sha256(self.text.encode()).hexdigest()[:16]}"

    def ids(
        self, tokenizer: PreTrainedTokenizerBase, sequence_tokens: int = _SEQUENCE_TOKENS
    ) -> Tensor:
        """Return sequences of the text.

        If the tokenizer begins a text with a token of its own, each sequence has it.

        Args:
            tokenizer: the model's.
            sequence_tokens: of each; less than 512 for a model that was trained on less.

        Returns:
            int64, [sequences, sequence_tokens].

        Raises:
            InputError: the text is shorter than a sequence.
        """
        count = self.num_tokens // sequence_tokens
        begin = tokenizer("", verbose=False)["input_ids"]
        assert isinstance(begin, list)
        kept = sequence_tokens - len(begin)
        rows = []
        for part in self._parts(count):
            text = part[: kept * _CHARACTERS_PER_TOKEN]
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            assert isinstance(ids, list)
            rows.append([*begin, *ids[:kept]])
        whole = [row for row in rows if len(row) == sequence_tokens]
        if self.text is not None and rows and not whole:
            raise InputError(
                f"calibration_text has less than {sequence_tokens} tokens; name a longer text"
            )
        return torch.tensor(whole, dtype=torch.long).view(-1, sequence_tokens)

    def _parts(self, count: int) -> list[str]:
        """Return a text for each sequence."""
        if self.text is not None:
            return _stretches(self.text, count)
        half = count // 2
        return [*_topics(count - half), *_stretches(_NOVEL.read_text(encoding="utf-8"), half)]


def _stretches(text: str, count: int) -> list[str]:
    """Return the rest of a text from evenly spread places on."""
    return [text[len(text) * i // count :] for i in range(count)]


def _topics(count: int) -> list[str]:
    """Return topics of Python's reference, each time from all over it."""
    from pydoc_data import topics

    texts = [topics.topics[name] for name in sorted(topics.topics)]
    return ["\n".join(texts[i::count]) for i in range(count)]


def sequence_length(config: PreTrainedConfig) -> int:
    """Return the tokens of a sequence: 512, or fewer if the model was trained on fewer."""
    trained = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return min(_SEQUENCE_TOKENS, trained) if isinstance(trained, int) else _SEQUENCE_TOKENS


def round_calibrated(
    model: PreTrainedModel,
    original: Callable[[str], Tensor],
    paths: Sequence[str],
    ids: Tensor,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[str, PackedWeight, Tensor]]:
    """Replace layers that are packed in eight bits by layers rounded to four, and yield them.

    Layers are taken in groups, so that their moments fit a gigabyte. A group meets the activations
    that the groups before it yield in four bits.

    Args:
        model: whose layers `paths` are `QuantizedLinear`.
        original: returns the weight of a layer before any rounding, float32.
        paths: names of the layers, in the order of the pass.
        ids: token ids, int64, [sequences, tokens].
        progress: told how many of the layers are done.

    Yields:
        the name of a layer, its packed weight, and its weight before.
    """
    done = 0
    for group in _groups(model, paths):
        moments = _moments(model, group, ids)
        for path in group:
            weight = original(path)
            width = weight.shape[1]
            packed = round_with_feedback(weight, moments.get(path, torch.eye(width)))
            install_layer(model, path, packed)
            done += 1
            progress(done, len(paths))
            yield path, packed, weight


def _groups(model: nn.Module, paths: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    num_bytes = 0
    for path in paths:
        layer = model.get_submodule(path)
        assert isinstance(layer, QuantizedLinear)
        width = layer.in_features
        if group and num_bytes + 4 * width**2 > _MAX_MOMENT_BYTES:
            yield group
            group, num_bytes = [], 0
        group.append(path)
        num_bytes += 4 * width**2
    yield group


def _moments(model: PreTrainedModel, paths: list[str], ids: Tensor) -> dict[str, Tensor]:
    """Return the sum of x x^T of the activations x of each layer, float32; siblings share one."""
    moments: dict[str, Tensor] = {}
    with _hooked(model, paths, moments), torch.no_grad():
        for row in ids:
            with suppress(_AllSeenError):
                model.get_decoder()(input_ids=row[None], use_cache=False)
    return moments


@contextmanager
def _hooked(model: nn.Module, paths: list[str], moments: dict[str, Tensor]) -> Iterator[None]:
    unseen: set[str] = set()
    last: list[tuple[Tensor, Tensor]] = []  # activations and their product, for siblings

    def add(path: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not unseen:
            unseen.update(paths)
            last.clear()
        x = inputs[0]
        if not last or last[0][0] is not x:
            rows = x.detach().flatten(0, -2).float()
            last[:] = [(x, rows.mT @ rows)]
        moments[path] = moments[path] + last[0][1] if path in moments else last[0][1]
        unseen.discard(path)
        if not unseen:
            raise _AllSeenError

    hooks = [
        model.get_submodule(path).register_forward_pre_hook(partial(add, path)) for path in paths
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
