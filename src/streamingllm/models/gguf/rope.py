"""The rotary frequencies that a GGUF file describes, in the fields of transformers.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, RoPE.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import GgufTensor
from streamingllm.models.gguf.metadata import ArchitectureMetadata

_DEFAULT_BASE = 10_000.0
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_CONTEXT = 8192
_TOLERANCE = 1e-4
_ENDLESS = 1e20  # what divides a frequency that is to be zero, at least
_LINEAR, _YARN, _LONG, _NONE = "linear", "yarn", "longrope", ("", "none")


def rope_parameters(metadata: ArchitectureMetadata) -> dict[str, Any]:
    """Return the `rope_parameters` of a configuration.

    Three kinds of files scale frequencies: by a rule (`rope.scaling.type`), by one tensor of
    factors (`rope_freqs.weight`, of Llama 3) or by two (`rope_factors_short.weight` and
    `rope_factors_long.weight`, of Phi 3).

    Args:
        metadata: of the file.

    Raises:
        ModelLoadError: the file scales in a way that is not known here.
    """
    base = _base(metadata, "rope.freq_base")
    fields: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    size = metadata.head_size
    rotated = metadata.integer("rope.dimension_count", size)
    if rotated != size:
        fields["partial_rotary_factor"] = rotated / size
    short = metadata.tensor("rope_factors_short.weight")
    long = metadata.tensor("rope_factors_long.weight")
    if short is not None and long is not None:
        return fields | _long_rope(metadata, _factors(short), _factors(long))
    single = metadata.tensor("rope_freqs.weight")
    if single is not None:
        return fields | _scaled_by_tensor(metadata, base, _factors(single))
    return fields | scaling(metadata)


def local_rope_parameters(metadata: ArchitectureMetadata) -> dict[str, dict[str, Any]]:
    """Return `rope_parameters` by kind of layer; local layers have a base of their own."""
    local = _base(metadata, "rope.freq_base_swa")
    return {
        "full_attention": rope_parameters(metadata),
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def proportional_rope(metadata: ArchitectureMetadata) -> dict[str, Any]:
    """Return `rope_parameters` of keys whose last frequencies are zero.

    The file divides these frequencies by a factor that leaves next to nothing of them.

    Raises:
        ModelLoadError: other frequencies are divided too, or scaled by a rule.
    """
    base = _base(metadata, "rope.freq_base")
    fields: dict[str, Any] = {"rope_type": "proportional", "rope_theta": base}
    stretch = scaling(metadata)
    if stretch and stretch["rope_type"] != _LINEAR:
        raise metadata.unsupported("rope.scaling.type", "cannot scale frequencies of such keys")
    if (tensor := metadata.tensor("rope_freqs.weight")) is not None:
        factors = _factors(tensor)
        rotated = sum(factor == 1.0 for factor in factors)
        if any(factor < _ENDLESS for factor in factors[rotated:]):
            raise ModelLoadError(
                f"{metadata.header.path}: rope_freqs.weight divides frequencies that transformers "
                "does not divide in this family; choose another file"
            )
        fields["partial_rotary_factor"] = rotated / len(factors)
    return fields | ({"factor": stretch["factor"]} if stretch else {})


def unscaled_rope(metadata: ArchitectureMetadata) -> dict[str, Any]:
    """Return `rope_parameters` of layers that share the base of the others, but not the scaling."""
    base = _base(metadata, "rope.freq_base")
    return {"rope_type": "default", "rope_theta": base}


def scaling(metadata: ArchitectureMetadata) -> dict[str, Any]:
    """Return the fields of a scaling by rule; none without scaling.

    Raises:
        ModelLoadError: the rule is not known.
    """
    kind = metadata.text("rope.scaling.type")
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 0.0))
    if factor <= 0.0 or (kind in _NONE and not metadata.has("rope.scale_linear")):
        return {}
    if kind in (_LINEAR, *_NONE):
        return {} if factor == 1.0 else {"rope_type": _LINEAR, "factor": factor}
    if kind == _YARN:
        return _yarn(metadata, factor)
    raise ModelLoadError(
        f"{metadata.header.path}: {metadata.key('rope.scaling.type')}={kind!r} is not known; "
        "choose a file with linear, yarn or no scaling"
    )


def _yarn(metadata: ArchitectureMetadata, factor: float) -> dict[str, Any]:
    context = metadata.integer("context_length")
    fields: dict[str, Any] = {
        "rope_type": _YARN,
        "factor": factor,
        "original_max_position_embeddings": metadata.integer(
            "rope.scaling.original_context_length", max(1, round(context / factor))
        ),
    }
    for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        if metadata.has(f"rope.scaling.{key}"):
            fields[name] = metadata.number(f"rope.scaling.{key}")
    if metadata.has("rope.scaling.attn_factor"):
        scale = 1.0 + 0.1 * math.log(factor) if factor > 1.0 else 1.0
        fields["attention_factor"] = metadata.number("rope.scaling.attn_factor") * scale
    return fields


def _long_rope(
    metadata: ArchitectureMetadata, short: Sequence[float], long: Sequence[float]
) -> dict[str, Any]:
    context = metadata.integer("context_length")
    original = metadata.integer("rope.scaling.original_context_length", context) or context
    fields = {
        "rope_type": _LONG,
        "short_factor": list(short),
        "long_factor": list(long),
        "original_max_position_embeddings": original,
        "factor": context / original,
    }
    if metadata.has("rope.scaling.attn_factor"):
        fields["attention_factor"] = metadata.number("rope.scaling.attn_factor")
    return fields


def _scaled_by_tensor(
    metadata: ArchitectureMetadata, base: float, factors: Sequence[float]
) -> dict[str, Any]:
    """Return Llama 3's rule if the factors follow from it, else the factors themselves."""
    if all(factor == 1.0 for factor in factors):
        return {}
    rule = {
        "rope_type": "llama3",
        "factor": max(factors),
        "original_max_position_embeddings": _LLAMA3_CONTEXT,
        **_LLAMA3,
    }
    expected = _llama3_factors(base, len(factors), max(factors))
    if all(abs(e - f) <= _TOLERANCE * f for e, f in zip(expected, factors, strict=True)):
        return rule
    return {
        "rope_type": _LONG,
        "short_factor": list(factors),
        "long_factor": list(factors),
        "original_max_position_embeddings": metadata.integer("context_length"),
        "factor": 1.0,
        "attention_factor": 1.0,
    }


def _llama3_factors(base: float, count: int, factor: float) -> list[float]:
    """Return what divides each frequency.

    Source: https://github.com/meta-llama/llama-models, `apply_scaling`.
    """
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    factors = []
    for index in range(count):
        wavelength = 2.0 * math.pi * base ** (index / count)
        smooth = (_LLAMA3_CONTEXT / wavelength - low) / (high - low)
        share = min(1.0, max(0.0, smooth))
        factors.append(1.0 / ((1.0 - share) / factor + share))
    return factors


def _base(metadata: ArchitectureMetadata, name: str) -> float:
    base = metadata.number(name, _DEFAULT_BASE)
    if base <= 0.0:
        raise metadata.missing(name, base)
    return base


def _factors(tensor: GgufTensor) -> tuple[float, ...]:
    """Read a tensor of a few numbers.

    Raises:
        ModelLoadError: it is of another type, or a number is not above zero.
    """
    count = tensor.num_bytes // 4
    if tensor.ggml_type.name != "F32" or len(tensor.shape) != 1 or count > 65_536:
        raise ModelLoadError(
            f"{tensor.path}: tensor {tensor.name!r} is no row of F32; fetch the file again"
        )
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        factors = struct.unpack(f"<{count}f", file.read(tensor.num_bytes))
    if not all(math.isfinite(factor) and factor > 0.0 for factor in factors):
        raise ModelLoadError(
            f"{tensor.path}: tensor {tensor.name!r} has a factor that is not above zero; fetch "
            "the file again"
        )
    return factors
