"""The layers of known families, read off what a checkpoint states, without modelling code.

A rule here repeats what a family's code in transformers does. It answers only if the checkpoint
states every field it needs. All else raises `NotKnownError`, and the model itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamingllm.evaluation import family_rules as rules
from streamingllm.evaluation.family_rules import Fields, NotKnownError, Windows, positive


@dataclass(frozen=True)
class LayerShape:
    """Describe what one layer caches; see `LayerGroup` for the names."""

    own_window: int | None
    position_encoding: str
    num_kv_heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True)
class KnownFamily:
    """A family whose layers follow from its configuration.

    Args:
        layers: returns them.
        tied: whether the output layer is the embedding where the configuration does not say.
        has_trained_length: whether the configuration states a length.
    """

    layers: Callable[[Fields], list[LayerShape]]
    tied: bool = False
    has_trained_length: bool = True


def _grouped(
    head_dim: Callable[[Fields], int] = rules.optional_head_dim,
    windows: Callable[[Fields], list[int | None]] = rules.no_windows,
    encodings: Callable[[Fields, Windows], list[str]] = rules.rope,
    kv_heads: Callable[[Fields], int] = rules.num_kv_heads,
) -> Callable[[Fields], list[LayerShape]]:
    """Return the rule of a family that caches keys and values of the same size."""

    def layers(fields: Fields) -> list[LayerShape]:
        heads, size, own = kv_heads(fields), head_dim(fields), windows(fields)
        if size % 2:
            raise NotKnownError(f"head_dim={size}")
        return [
            LayerShape(window, encoding, heads, size, size)
            for window, encoding in zip(own, encodings(fields, own), strict=True)
        ]

    return layers


def _latent(fields: Fields) -> list[LayerShape]:
    """Return layers that cache a latent vector and a rotary key for all heads (DeepSeek)."""
    windows = rules.no_windows(fields)
    latent, rotary = positive(fields, "kv_lora_rank"), positive(fields, "qk_rope_head_dim")
    return [LayerShape(None, name, 1, latent, rotary) for name in rules.rope(fields, windows)]


def _falcon(fields: Fields) -> list[LayerShape]:
    flags = [fields.get(name) for name in ("new_decoder_architecture", "multi_query", "alibi")]
    if not all(isinstance(flag, bool) for flag in flags):
        raise NotKnownError("a flag is not stated")
    is_new, is_multi_query, has_alibi = flags
    single = 1 if is_multi_query else rules.num_heads(fields)
    kv_heads = positive(fields, "num_kv_heads") if is_new else single
    name, size = "alibi" if has_alibi else "rope", rules.fixed_head_dim(fields)
    return [LayerShape(None, name, kv_heads, size, size)] * len(rules.no_windows(fields))


def _plain(name: str) -> Callable[[Fields], list[LayerShape]]:
    """Return the rule of a family with a key/value head per query head and one encoding."""
    return _grouped(
        rules.fixed_head_dim, encodings=lambda _, own: [name] * len(own), kv_heads=rules.num_heads
    )


def _mpt(fields: Fields) -> list[LayerShape]:
    attention = fields.get("attn_config")
    if not isinstance(attention, dict) or attention.get("alibi") is not True:
        raise NotKnownError(f"attn_config={attention!r}")
    return _plain("alibi")(fields)


_LLAMA = KnownFamily(_grouped())
_every_fourth_global = rules.alternating(4, "sliding_window_pattern")
_every_sixth_global = rules.alternating(6, "sliding_window_pattern")
_every_other_global = rules.alternating(2)

KNOWN_FAMILIES: Mapping[str, KnownFamily] = {
    "bloom": KnownFamily(_plain("alibi"), tied=True, has_trained_length=False),
    "cohere": KnownFamily(_grouped(), tied=True),
    "cohere2": KnownFamily(
        _grouped(rules.fixed_head_dim, _every_fourth_global, rules.local_rope),
        tied=True,
    ),
    "deepseek_v2": KnownFamily(_latent),
    "deepseek_v3": KnownFamily(_latent),
    "falcon": KnownFamily(_falcon, tied=True),
    "gemma2": KnownFamily(_grouped(rules.stated_head_dim, _every_other_global), tied=True),
    "gemma3_text": KnownFamily(
        _grouped(rules.stated_head_dim, _every_sixth_global, rules.gemma3_rope),
        tied=True,
    ),
    "glm4": KnownFamily(_grouped(rules.stated_head_dim)),
    "gpt_neox": KnownFamily(_grouped(rules.fixed_head_dim, kv_heads=rules.num_heads)),
    "gpt_oss": KnownFamily(_grouped(rules.stated_head_dim, _every_other_global, rules.stated_rope)),
    "gptj": KnownFamily(_plain("rope")),
    "granite": _LLAMA,
    "granitemoe": _LLAMA,
    "llama": _LLAMA,
    "mistral": KnownFamily(_grouped(windows=rules.stated_window)),
    "mixtral": KnownFamily(_grouped(windows=rules.same_window)),
    "mpt": KnownFamily(_mpt, tied=True),
    "olmo2": _LLAMA,
    "olmoe": _LLAMA,
    "phi": _LLAMA,
    "phi3": KnownFamily(_grouped(windows=rules.same_window, encodings=rules.phi3_rope)),
    "qwen2": KnownFamily(_grouped(windows=rules.switched_off)),
    "qwen2_moe": KnownFamily(_grouped(windows=rules.switched_off)),
    "qwen3": KnownFamily(_grouped(rules.stated_head_dim, rules.switched_off)),
    "qwen3_moe": KnownFamily(_grouped(rules.stated_head_dim, rules.switched_off)),
    "smollm3": KnownFamily(
        _grouped(windows=rules.switched_off, encodings=rules.chosen_rope), tied=True
    ),
    "stablelm": KnownFamily(_grouped(rules.fixed_head_dim)),
    "starcoder2": KnownFamily(_grouped(windows=rules.same_window), tied=True),
}
# What a family's learned positions are called, or None where a recurrent state is the reason.
REFUSED_FAMILIES: Mapping[str, str | None] = {
    "gpt2": "transformer.wpe",
    "gpt_bigcode": "transformer.wpe",
    "gpt_neo": "transformer.wpe",
    "mamba": None,
    "opt": "model.decoder.embed_positions",
}
