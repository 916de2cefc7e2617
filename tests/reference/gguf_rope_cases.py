"""Cases of files that scale rotary frequencies by tensors of factors.

Factors are computed from the published formulas, independently of the code under test.
"""

from __future__ import annotations

import math

from tests.reference.gguf_case import RMS, GgufFamilyCase, rms, rope

_BASE = {"rope.freq_base": 500_000.0}
_CONTEXT, _FACTOR, _SIZE = 8192, 8.0, 16
_SHORT, _LONG = [1.0, 1.1, 1.2, 1.3], [2.0, 3.0, 5.0, 8.0]


def llama3_factors() -> list[float]:
    """Return what Llama 3.1 divides its frequencies by.

    Source: https://github.com/meta-llama/llama-models, `apply_scaling`.
    """
    factors = []
    for pair in range(_SIZE // 2):
        frequency = 500_000.0 ** (-2 * pair / _SIZE)
        wavelength = 2 * math.pi / frequency
        if wavelength < _CONTEXT / 4:
            factors.append(1.0)
        elif wavelength > _CONTEXT / 1:
            factors.append(_FACTOR)
        else:
            smooth = (_CONTEXT / wavelength - 1) / (4 - 1)
            scaled = (1 - smooth) * frequency / _FACTOR + smooth * frequency
            factors.append(frequency / scaled)
    return factors


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": _FACTOR,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": _CONTEXT,
}
_PHI = {"rope.dimension_count": 8, "attention.sliding_window": 200}

ROPE_CASES = {
    "llama-3": rms(
        "llama",
        {"rope_parameters": _LLAMA3},
        _BASE,
        tensors={"rope_freqs.weight": llama3_factors()},
    ),
    "llama-factors": rms(
        "llama",
        {
            "head_dim": 8,
            **rope(
                rope_type="longrope",
                short_factor=_LONG,
                long_factor=_LONG,
                original_max_position_embeddings=256,
                attention_factor=1.0,
            ),
        },
        {"attention.key_length": 8, "attention.value_length": 8},
        tensors={"rope_freqs.weight": _LONG},
    ),
    "phi3-long": rms(
        "phi3",
        {
            "sliding_window": 200,
            "original_max_position_embeddings": 32,
            **rope(
                rope_type="longrope",
                short_factor=_SHORT,
                long_factor=_LONG,
                original_max_position_embeddings=32,
                factor=8.0,
                partial_rotary_factor=0.5,
            ),
        },
        {**_PHI, "rope.scaling.original_context_length": 32},
        tensors={"rope_factors_short.weight": _SHORT, "rope_factors_long.weight": _LONG},
    ),
    "llama-scale_linear": GgufFamilyCase(
        "llama",
        {"rms_norm_eps": 1e-3, **rope(rope_type="linear", factor=2.0)},
        {**RMS, "rope.freq_base": 500.0, "rope.scale_linear": 2.0},
    ),
}
