"""Rules by which fields of a configuration give heads, windows and position encodings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Fields = Mapping[str, Any]
Windows = Sequence[int | None]
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_RULES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")


class NotKnownError(Exception):
    """A checkpoint states what no rule here covers, or leaves out what a rule needs."""


def positive(fields: Fields, *names: str) -> int:
    """Return the first of the named fields that is stated, a positive integer."""
    value = next((fields[name] for name in names if name in fields), None)
    if type(value) is not int or value < 1:
        raise NotKnownError(f"{names[0]}={value!r}")
    return value


def num_layers(fields: Fields) -> int:
    """Return how many layers a model has."""
    return positive(fields, "num_hidden_layers", "n_layer", "n_layers", "num_layers")


def num_heads(fields: Fields) -> int:
    """Return how many query heads a layer has."""
    return positive(fields, "num_attention_heads", "n_head", "n_heads")


def derived_head_dim(fields: Fields) -> int:
    """Return the size of heads that share the hidden state among them."""
    width, heads = positive(fields, "hidden_size", "n_embd", "d_model"), num_heads(fields)
    if width % heads:
        raise NotKnownError(f"hidden_size={width} of {heads} heads")
    return width // heads


def optional_head_dim(fields: Fields) -> int:
    """Return the size of heads that is stated, else the derived one."""
    if fields.get("head_dim") is None:
        return derived_head_dim(fields)
    return positive(fields, "head_dim")


def stated_head_dim(fields: Fields) -> int:
    """Return the size of heads of a family that has a default of its own."""
    return positive(fields, "head_dim")


def fixed_head_dim(fields: Fields) -> int:
    """Return the size of heads of a family that takes no other, whatever is stated."""
    size = derived_head_dim(fields)
    if fields.get("head_dim", size) != size:
        raise NotKnownError(f"head_dim={fields['head_dim']!r}")
    return size


def num_kv_heads(fields: Fields) -> int:
    """Return how many key/value heads a layer has; a stated null means one per query head."""
    heads = num_heads(fields)
    if "num_key_value_heads" in fields and fields["num_key_value_heads"] is None:
        return heads
    kv_heads = positive(fields, "num_key_value_heads")
    if heads % kv_heads:
        raise NotKnownError(f"num_key_value_heads={kv_heads} of {heads} heads")
    return kv_heads


# Windows, layer by layer.


def no_windows(fields: Fields) -> list[int | None]:
    """Return the windows of a family that has none."""
    if fields.get("sliding_window") is not None or fields.get("layer_types") is not None:
        raise NotKnownError("a window where the family has none")
    return [None] * num_layers(fields)


def same_window(fields: Fields) -> list[int | None]:
    """Return windows of a family whose layers all have that of `sliding_window`, if any."""
    if fields.get("layer_types") is not None or fields.get("use_sliding_window") is not None:
        raise NotKnownError("layers that differ")
    window = fields.get("sliding_window")
    return [None if window is None else positive(fields, "sliding_window")] * num_layers(fields)


def stated_window(fields: Fields) -> list[int | None]:
    """Return windows as `same_window` does, of a family that has one unless it states null."""
    if "sliding_window" not in fields:
        raise NotKnownError("sliding_window is not stated")
    return same_window(fields)


def switched_off(fields: Fields) -> list[int | None]:
    """Return the windows of a family that can have some; none of them if they are switched off."""
    types = fields.get("layer_types")
    if fields.get("use_sliding_window") is not False or (types and set(types) != {_GLOBAL}):
        raise NotKnownError("windows that are switched on")
    return [None] * num_layers(fields)


def alternating(period: int, name: str | None = None) -> Callable[[Fields], list[int | None]]:
    """Return the windows of a family with a global layer after `period - 1` local ones.

    Args:
        period: the family's own.
        name: of the field that may state another.
    """

    def windows(fields: Fields) -> list[int | None]:
        layers, window = num_layers(fields), positive(fields, "sliding_window")
        stated = fields.get("layer_types")
        every = positive({"period": period, **fields}, name or "period", "period")
        types = stated or [_LOCAL if (i + 1) % every else _GLOBAL for i in range(layers)]
        if len(types) != layers or not set(types) <= {_LOCAL, _GLOBAL}:
            raise NotKnownError(f"layer_types={types!r}")
        if fields.get("use_bidirectional_attention") or "use_sliding_window" in fields:
            raise NotKnownError("a window of another width")
        return [window if kind == _LOCAL else None for kind in types]

    return windows


# Position encodings, layer by layer.


def _rope_rule(parameters: Any) -> str:
    """Return the name of a rotary encoding, with the rule that scales it."""
    if parameters is None:
        return "rope"
    if not isinstance(parameters, dict) or {_LOCAL, _GLOBAL} & parameters.keys():
        raise NotKnownError(f"rope_parameters={parameters!r}")
    rule = parameters.get("rope_type", parameters.get("type", "default"))
    if rule not in _RULES:
        raise NotKnownError(f"rope_type={rule!r}")
    return "rope" if rule == "default" else f"rope ({rule})"


def rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the encodings of a family whose layers all turn alike."""
    rule = _rope_rule(fields.get("rope_scaling") or fields.get("rope_parameters"))
    return [rule] * len(windows)


def phi3_rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the encodings of Phi 3, which takes one rule."""
    parameters = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    if parameters.get("type") in ("su", "yarn"):  # names that its files once had for the same rule
        parameters["type"] = "longrope"
    if _rope_rule(parameters) not in ("rope", "rope (longrope)"):
        raise NotKnownError(f"rope_scaling={parameters!r}")
    return rope({"rope_scaling": parameters}, windows)


def stated_rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the encodings of a family that scales unless it states otherwise."""
    if not (fields.get("rope_scaling") or fields.get("rope_parameters")):
        raise NotKnownError("rope_parameters is not stated")
    return rope(fields, windows)


def gemma3_rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the rules of local and global layers; once there was one rule, for the latter."""
    stated = fields.get("rope_parameters") or {_GLOBAL: None, _LOCAL: None}
    if not isinstance(stated, dict) or not stated.keys() <= {_GLOBAL, _LOCAL}:
        raise NotKnownError(f"rope_parameters={stated!r}")
    of_global = _rope_rule(fields.get("rope_scaling") or stated.get(_GLOBAL))
    of_local = _rope_rule(stated.get(_LOCAL))
    return [of_global if window is None else of_local for window in windows]


def local_rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the encodings of a family whose global layers have none."""
    names = rope(fields, windows)
    return ["none" if window is None else name for name, window in zip(names, windows, strict=True)]


def chosen_rope(fields: Fields, windows: Windows) -> list[str]:
    """Return the encodings of a family that lists the layers without one."""
    chosen = fields.get("no_rope_layers")
    if not isinstance(chosen, list) or len(chosen) < len(windows):
        raise NotKnownError(f"no_rope_layers={chosen!r}")
    names = rope(fields, windows)
    return [name if has else "none" for name, has in zip(names, chosen, strict=False)]
