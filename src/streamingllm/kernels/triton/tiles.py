"""Load a tile of columns and join it to the softmax, for all Triton kernels of attention."""

import triton
import triton.language as tl

# A finite stand-in for minus infinity: differences of two of them are 0, not nan.
LOWEST = tl.constexpr(-1e30)
# Float32 in three products on tensor cores, good to about 1e-6; registers spill without them.
PRECISION = tl.constexpr("tf32x3")


@triton.jit
def load_tile(
    rows,
    scales,
    columns,
    visible,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    OPERAND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Load rows of a head, [columns, BLOCK], and the factor of each, [columns].

    `rows` are WIDTH wide and lie side by side; invisible ones and what is past DIM are 0. Quantised
    rows stay codes, whose factors `scales`, the same memory as float32, holds.
    """
    dims = tl.arange(0, BLOCK)
    columns = columns.to(tl.int64)
    tile = tl.load(
        rows + columns[:, None] * WIDTH + dims[None, :],
        mask=visible[:, None] & (dims < DIM)[None, :],
        other=0,
    ).to(OPERAND)
    if QUANTIZED:
        factors = tl.load(scales + columns * (WIDTH // 4) + DIM // 4, mask=visible, other=0.0)
    else:
        factors = tl.full(columns.shape, 1.0, tl.float32)
    return tile, factors


@triton.jit
def join_tile(
    queries,
    keys,
    values,
    key_factors,
    value_factors,
    visible,
    highest,
    total,
    out,
    scale,
    SOFTCAP: tl.constexpr,
):
    """Join a tile of columns to a running softmax.

    Args:
        queries: [queries, key dims], of the keys' dtype.
        keys: [columns, key dims].
        values: [columns, value dims].
        key_factors: float32, [columns].
        value_factors: float32, [columns].
        visible: bool, [queries or 1, columns].
        highest: the greatest score so far, float32, [queries].
        total: the sum of weights relative to it, float32, [queries].
        out: the sum of weighted values, float32, [queries, value dims].
        scale: factor of the scores.
        SOFTCAP: see `reference.decode_attention`.

    Returns:
        highest, total and out with the tile in them.
    """
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
    scores *= scale * key_factors[None, :]
    if SOFTCAP > 0:
        scores = SOFTCAP * (2 * tl.sigmoid(2 * scores / SOFTCAP) - 1)  # tanh
    scores = tl.where(visible, scores, float("-inf"))
    highest_now = tl.maximum(highest, tl.max(scores, axis=1))
    kept = tl.exp(highest - highest_now)
    weights = tl.exp(scores - highest_now[:, None])
    total = total * kept + tl.sum(weights, axis=1)
    weights = (weights * value_factors[None, :]).to(values.dtype)
    out = tl.dot(weights, values, acc=out * kept[:, None], input_precision=PRECISION)
    return highest_now, total, out
