"""The attention of a model's layers replaced by a function, for the time of a context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

Attend = Callable[..., Tensor]


@contextmanager
def replaced_attention(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Let `attend` compute the attention of every layer of `model`."""
    with ExitStack() as undo:
        bypass = BYPASSES.get(model.config.model_type)
        if bypass is not None:
            bypass(model, attend, undo)
        else:

            def interface(
                module: Any,
                query: Tensor,
                key: Tensor,
                value: Tensor,
                attention_mask: None,
                scaling: float | None = None,
                softcap: float | None = None,
                s_aux: Tensor | None = None,
                **kwargs: Any,
            ) -> tuple[Tensor, None]:
                scale = query.shape[-1] ** -0.5 if scaling is None else scaling
                out = attend(module.layer_idx, query, key, value, scale, softcap, s_aux)
                return out.transpose(1, 2).contiguous(), None

            name_attention(model, interface, undo)
        yield


def name_attention(model: PreTrainedModel, interface: Any, undo: ExitStack) -> None:
    # A name without a mask function: models then make no mask at all.
    AttentionInterface.register("oracle", interface)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for config in configs.values():
        undo.enter_context(patch.object(config, "_attn_implementation_internal", "oracle"))


def _bypass_gptj(model: Any, attend: Attend, undo: ExitStack) -> None:
    for layer, block in enumerate(model.transformer.h):

        def _attn(
            q: Tensor, k: Tensor, v: Tensor, mask: Any, layer: int = layer, attn: Any = block.attn
        ) -> tuple[Tensor, None]:
            return attend(layer, q, k, v, attn.head_dim**-0.5), None

        undo.enter_context(patch.object(block.attn, "_attn", _attn))


def _bypass_falcon(model: Any, attend: Attend, undo: ExitStack) -> None:
    turns = iter(range(len(model.transformer.h)))

    def sdpa(q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        return attend(next(turns), q, k, v, q.shape[-1] ** -0.5)

    undo.enter_context(patch("torch.nn.functional.scaled_dot_product_attention", sdpa))


def _bypass_bloom(model: Any, attend: Attend, undo: ExitStack) -> None:
    for block in model.transformer.h:

        def forward(
            hidden: Tensor,
            residual: Tensor,
            *,
            attn: Any = block.self_attention,
            **kwargs: Any,
        ) -> tuple[Tensor, None]:
            batch, seq, _ = hidden.shape
            qkv = attn.query_key_value(hidden).view(batch, seq, attn.num_heads, 3, attn.head_dim)
            q, k, v = qkv.permute(3, 0, 2, 1, 4)
            out = attend(attn.layer_idx, q, k, v, attn.head_dim**-0.5)
            return attn.dense(out.transpose(1, 2).flatten(2)) + residual, None

        undo.enter_context(patch.object(block.self_attention, "forward", forward))


def _bypass_mpt(model: Any, attend: Attend, undo: ExitStack) -> None:
    for layer, block in enumerate(model.transformer.blocks):

        def forward(
            hidden: Tensor, *, layer: int = layer, attn: Any = block.attn, **kwargs: Any
        ) -> tuple[Tensor, None]:
            qkv = attn.Wqkv(hidden)
            if attn.clip_qkv is not None:
                qkv = qkv.clamp(-attn.clip_qkv, attn.clip_qkv)
            heads = [x.unflatten(2, (attn.n_heads, -1)).transpose(1, 2) for x in qkv.chunk(3, 2)]
            out = attend(layer, *heads, attn.softmax_scale)
            return attn.out_proj(out.transpose(1, 2).flatten(2)), None

        undo.enter_context(patch.object(block.attn, "forward", forward))


BYPASSES: dict[str, Callable[[Any, Attend, ExitStack], None]] = {
    "gptj": _bypass_gptj,
    "falcon": _bypass_falcon,
    "bloom": _bypass_bloom,
    "mpt": _bypass_mpt,
}
