"""The Triton kernel of `windowed_attention`."""

import triton
import triton.language as tl

from streamingllm.kernels.triton.tiles import LOWEST, join_tile, load_tile


@triton.jit
def attend_chunk(
    q,
    q_for_sinks,
    k,
    v,
    sinks_seen,
    window_lengths,
    sink_logits,
    out,
    num_queries,
    num_sinks,
    num_columns,
    scale,
    NUM_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SINK_LOGITS: tl.constexpr,
    OPERAND: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Attend from BLOCK_Q queries of one head to the sinks, then along the band of the window."""
    head, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_Q
    numbers = first + tl.arange(0, BLOCK_Q)
    exists = numbers < num_queries
    dims, width = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_V)
    queries_at = head * num_queries + numbers
    places = queries_at[:, None] * KEY_DIM + dims[None, :]
    is_query = exists[:, None] & (dims < KEY_DIM)[None, :]
    keys_at = k + head // GROUP_SIZE * num_columns * KEY_DIM
    values_at = v + head // GROUP_SIZE * num_columns * VALUE_DIM
    highest = tl.full((BLOCK_Q,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    out_tile = tl.zeros((BLOCK_Q, BLOCK_V), tl.float32)
    if HAS_SINK_LOGITS:  # a column that has a score and no value
        learned = tl.load(sink_logits + head % NUM_HEADS).to(tl.float32)
        highest = tl.zeros((BLOCK_Q,), tl.float32) + learned
        total += 1.0

    queries = tl.load(q_for_sinks + places, mask=is_query, other=0.0).to(OPERAND)
    seen = tl.load(sinks_seen + numbers, mask=exists, other=0).to(tl.int32)
    seen = tl.minimum(seen, num_sinks)
    end = tl.max(seen, axis=0)
    for column in range(0, end, BLOCK_N):
        columns = column + tl.arange(0, BLOCK_N)
        in_use = columns < end
        keys, factors = load_tile(
            keys_at, keys_at, columns, in_use, KEY_DIM, KEY_DIM, False, OPERAND, BLOCK_K
        )
        values, _ = load_tile(
            values_at, values_at, columns, in_use, VALUE_DIM, VALUE_DIM, False, OPERAND, BLOCK_V
        )
        visible = columns[None, :] < seen[:, None]
        highest, total, out_tile = join_tile(
            queries, keys, values, factors, factors, visible, highest, total, out_tile, scale,
            SOFTCAP,
        )  # fmt: skip

    queries = tl.load(q + places, mask=is_query, other=0.0).to(OPERAND)
    own_column = num_columns - num_queries + numbers
    lengths = tl.load(window_lengths + numbers, mask=exists, other=0).to(tl.int32)
    begin = tl.maximum(num_sinks, tl.min(own_column - lengths, axis=0) + 1)
    end = tl.minimum(num_columns, num_columns - num_queries + first + BLOCK_Q)
    for column in range(begin, end, BLOCK_N):
        columns = column + tl.arange(0, BLOCK_N)
        in_use = columns < end
        keys, factors = load_tile(
            keys_at, keys_at, columns, in_use, KEY_DIM, KEY_DIM, False, OPERAND, BLOCK_K
        )
        values, _ = load_tile(
            values_at, values_at, columns, in_use, VALUE_DIM, VALUE_DIM, False, OPERAND, BLOCK_V
        )
        ahead = own_column[:, None] - columns[None, :]
        visible = (ahead >= 0) & (ahead < lengths[:, None])
        highest, total, out_tile = join_tile(
            queries, keys, values, factors, factors, visible, highest, total, out_tile, scale,
            SOFTCAP,
        )  # fmt: skip

    total = tl.where(exists, total, 1.0)  # of queries past the last
    tokens = head // NUM_HEADS * num_queries + numbers
    written = (tokens * NUM_HEADS + head % NUM_HEADS)[:, None] * VALUE_DIM + width[None, :]
    tl.store(
        out + written,
        (out_tile / total[:, None]).to(out.dtype.element_ty),
        mask=exists[:, None] & (width < VALUE_DIM)[None, :],
    )
