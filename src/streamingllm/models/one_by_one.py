"""Read a model tensor by tensor: each is packed or cast before the next one is read.

transformers maps the names and merges the tensors of a checkpoint, as for any model. Its door for
quantisers hands each finished weight to an operation of ours, which replaces the linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from streamingllm.errors import ModelLoadError
from streamingllm.kernels.packing import PackedWeight
from streamingllm.models.decoder_class import check_sinks_used, decoder_class
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.formats.base import StoredTensor
from streamingllm.models.formats.stored import StoredWeight
from streamingllm.models.quantize import install_layer
from streamingllm.models.quiet import quiet_libraries
from streamingllm.models.shards import Shards

_METHOD = "streamingllm"
_FLOATS = ("F64", "F32", "F16", "BF16")

Pack = Callable[[str, Tensor, StoredWeight | None, bool], PackedWeight | None]
"""Packs a linear layer, or returns None to keep it dense.

Takes its name, its weight in float32, what the checkpoint stores, and whether it is the head.
"""


@dataclass
class Reading:
    """Hold what one reading of a model needs and finds.

    Args:
        shards: the files.
        stored: quantised weights by their name in the dense model.
        dtype: of all that is not packed.
        pack: chooses what becomes of linear layers.
        progress: told the bytes read and the bytes of all files.
        kept: layers packed before, whose source tensors are not read.
        sources: names of those tensors.

    Attributes:
        packed: linear layers by name.
        packed_from: the tensor of the dense model that each came from.
        failure: the first error inside transformers, which reports errors in a list.
        num_read_bytes: of the files, so far.
    """

    shards: Shards
    stored: Mapping[str, StoredTensor]
    dtype: torch.dtype
    pack: Pack
    progress: Callable[[int, int], None]
    kept: Mapping[str, PackedWeight] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    packed: dict[str, PackedWeight] = field(default_factory=dict)
    packed_from: dict[str, str] = field(default_factory=dict)
    failure: Exception | None = None
    num_read_bytes: int = 0

    def __deepcopy__(self, memo: object) -> Reading:
        return self  # transformers copies configurations, and this hangs on one

    def count(self, name: str) -> None:
        """Report that the parts of a tensor are about to be read."""
        stored = self.stored.get(name)
        parts = (name,) if stored is None else stored.parts
        self.num_read_bytes += sum(self.shards.num_bytes(part) for part in parts)
        self.progress(self.num_read_bytes, self.shards.total_bytes)

    def original(self, path: str) -> Tensor:
        """Read the weight of a packed layer once more, in float32 and before any rounding."""
        name = self.packed_from[path]
        stored = self.stored.get(name)
        return self.shards.read(name).float() if stored is None else stored.read().dense()

    def has_original(self, path: str) -> bool:
        """Tell whether one tensor of the checkpoint is the weight of a packed layer."""
        name = self.packed_from.get(path, "")
        return name in self.stored or name in self.shards

    def state_dict(self) -> dict[str, _Pending]:
        """Return every tensor of the dense model, none of which is read yet."""
        parts = {part for tensor in self.stored.values() for part in tensor.parts}
        names = [*(n for n in self.shards.names if n not in parts), *self.stored]
        skipped = set(self.sources.values())
        return {name: _Pending(self, name, name in skipped) for name in names}


class _Pending:
    """A tensor that is read when transformers takes its elements."""

    def __init__(self, reading: Reading, name: str, is_skipped: bool) -> None:
        self._reading, self._name, self._is_skipped = reading, name, is_skipped

    def __getitem__(self, index: object) -> Tensor:
        reading, shards = self._reading, self._reading.shards
        reading.count(self._name)
        if self._is_skipped:
            return torch.empty(0)
        if (stored := reading.stored.get(self._name)) is not None:
            weight = stored.read()
            dense = weight.dense()
            dense.stored_weight = weight  # type: ignore[attr-defined]
            return dense
        dtype = shards.dtype(self._name)
        if dtype not in _FLOATS and len(shards.shape(self._name)) > 1:
            raise ModelLoadError(
                f"{shards.folder}: {self._name} has dtype={dtype!r}, which its quantization_config "
                "does not explain; choose a checkpoint in another format"
            )
        return shards.read(self._name)


@register_quantizer(_METHOD)
class _OneByOne(HfQuantizer):
    """Take every weight, so that transformers reads them one after the other."""

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        return True

    def get_quantize_ops(self) -> ConversionOps:
        settings: Any = self.quantization_config
        return _Take(settings.reading)

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


class _Settings(QuantizationConfigMixin):
    def __init__(self, reading: Reading) -> None:
        super().__init__(quant_method=_METHOD)  # type: ignore[arg-type]
        self.reading = reading

    def to_dict(self) -> dict[str, Any]:
        return {"quant_method": self.quant_method}


class _Take(ConversionOps):
    """Pack the weights of linear layers and cast all others."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **context: Any,
    ) -> dict[str, Any]:
        model, missing = context["model"], context["missing_keys"]
        try:
            return {
                name: tensor
                for name, value in input_dict.items()
                if (tensor := self._take(model, name, value, source_patterns, missing)) is not None
            }
        except Exception as error:  # transformers would go on and report a list
            self._reading.failure = self._reading.failure or error
            raise

    def _take(
        self, model: PreTrainedModel, name: str, value: Any, sources: list[str], missing: set[str]
    ) -> Tensor | None:
        reading = self._reading
        tensor: Tensor = value[0] if isinstance(value, list) else value
        path, _, attribute = name.rpartition(".")
        layer = model.get_submodule(path)
        if type(layer) is nn.Linear and attribute == "weight":
            packed = reading.kept.get(path)
            if packed is None:
                _check_shape(name, tensor, layer.weight)
                stored = getattr(tensor, "stored_weight", None)
                packed = reading.pack(path, tensor, stored, layer is _head(model))
            if packed is not None:
                installed: Any = install_layer(model, path, packed)
                installed._is_hf_initialized = True
                missing.discard(name)
                reading.packed[path], reading.packed_from[path] = packed, sources[0]
                return None
        return tensor.to(reading.dtype) if tensor.is_floating_point() else tensor


def _check_shape(name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise ModelLoadError(
            f"{name} has shape {tuple(tensor.shape)} and the model expects "
            f"{tuple(expected.shape)}; fetch the files again"
        )


def read_one_by_one(reading: Reading, config: PreTrainedConfig) -> PreTrainedModel:
    """Read a model; see `Reading` for what is done to its weights.

    Raises:
        ModelLoadError: the architecture is unknown, or weights are missing or damaged.
    """
    folder = reading.shards.folder
    reading.progress(0, reading.shards.total_bytes)
    config = _without_quantization(config)
    with failing_as_load_error(f"{folder}: cannot be read as a decoder"), quiet_libraries():
        try:
            kind: Any = decoder_class(config)
            loaded: Any = kind.from_pretrained(
                None,
                config=config,
                state_dict=reading.state_dict(),
                quantization_config=_Settings(reading),
                dtype=torch.float32,  # in which weights pass, one at a time
                output_loading_info=True,
            )
        except Exception:
            if reading.failure is not None:
                raise reading.failure from None
            raise
    model, report = loaded
    check_sinks_used(report["unexpected_keys"], folder)
    if missing := sorted(report["missing_keys"]):
        raise ModelLoadError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are missing, such as "
            f"{missing[0]}; fetch the files again"
        )
    model.hf_quantizer.remove_quantization_config(model)
    if (folder / "generation_config.json").is_file():
        with failing_as_load_error(f"{folder}: has a damaged generation_config.json"):
            model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = model.config.name_or_path = str(folder)
    _pack_tied_head(model, reading)
    model.config.dtype = reading.dtype
    reading.progress(reading.shards.total_bytes, reading.shards.total_bytes)
    return model  # type: ignore[no-any-return]


def _pack_tied_head(model: PreTrainedModel, reading: Reading) -> None:
    """Pack the head if it shares the embedding's table, which stays as it is."""
    head = _head(model)
    if head is None or type(head) is not nn.Linear:
        return
    path = next(name for name, module in model.named_modules() if module is head)
    packed = reading.kept.get(path)
    if packed is None:
        packed = reading.pack(path, head.weight.detach().float(), None, True)
    if packed is not None:
        install_layer(model, path, packed)
        reading.packed[path] = packed


def _head(model: PreTrainedModel) -> nn.Module | None:
    head: nn.Module | None = model.get_output_embeddings()
    return head


def _without_quantization(config: PreTrainedConfig) -> PreTrainedConfig:
    for part in (config, config.get_text_config(decoder=True)):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config
