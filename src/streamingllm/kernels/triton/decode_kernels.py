"""The Triton kernels of `decode_attention`: write the tokens, attend in spans, merge the spans.

Nothing here depends on the host: positions and streams are read on the device, so a captured graph
can be replayed for any of them.
"""

import triton
import triton.language as tl

from streamingllm.kernels.triton.tiles import LOWEST, join_tile, load_tile

# Added and taken away again, it leaves a float32 below 2^22 rounded to the nearest, ties to even.
_ROUNDER = tl.constexpr(12582912.0)


@triton.jit
def write_tokens(
    k,
    v,
    k_ring,
    k_ring_stream,
    k_ring_head,
    v_ring,
    v_ring_stream,
    v_ring_head,
    k_scales,
    v_scales,
    k_undo,
    k_undo_stream,
    k_undo_head,
    v_undo,
    v_undo_stream,
    v_undo_head,
    rows,
    positions,
    window_size,
    undo_size,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Put the key and the value of one head of one token into their rings."""
    program = tl.program_id(0)
    batch, head = program // NUM_KV_HEADS, program % NUM_KV_HEADS
    stream, position = tl.load(rows + batch), tl.load(positions + batch)
    k_place = stream * k_ring_stream + head * k_ring_head
    v_place = stream * v_ring_stream + head * v_ring_head
    _write_row(
        k + program * KEY_DIM,
        k_ring + k_place,
        k_scales + k_place // 4,
        k_undo + stream * k_undo_stream + head * k_undo_head,
        position,
        window_size,
        undo_size,
        KEY_DIM,
        KEY_WIDTH,
        QUANTIZED,
        BLOCK_K,
    )
    _write_row(
        v + program * VALUE_DIM,
        v_ring + v_place,
        v_scales + v_place // 4,
        v_undo + stream * v_undo_stream + head * v_undo_head,
        position,
        window_size,
        undo_size,
        VALUE_DIM,
        VALUE_WIDTH,
        QUANTIZED,
        BLOCK_V,
    )


@triton.jit
def _write_row(
    new,
    ring,
    scales,
    undo,
    position,
    window_size,
    undo_size,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entries = tl.arange(0, BLOCK)
    slot = position % window_size
    if (undo_size > 0) & (position >= window_size):
        old = tl.load(ring + slot * WIDTH + entries, mask=entries < WIDTH)
        place = (position - window_size) % undo_size
        tl.store(undo + place * WIDTH + entries, old, mask=entries < WIDTH)
        tl.debug_barrier()  # no thread may write before all have read
    x = tl.load(new + entries, mask=entries < DIM, other=0.0)
    if QUANTIZED:
        x = x.to(tl.float32)
        greatest = tl.max(tl.abs(x), axis=0)
        inverse = tl.div_rn(127.0, tl.where(greatest > 0, greatest, 1.0))
        tl.store(scales + slot * (WIDTH // 4) + DIM // 4, tl.div_rn(greatest, 127.0))
        x = (x * inverse + _ROUNDER) - _ROUNDER
    tl.store(ring + slot * WIDTH + entries, x.to(ring.dtype.element_ty), mask=entries < DIM)


@triton.jit
def attend_spans(
    q,
    q_for_sinks,
    k_sinks,
    k_sinks_stream,
    k_sinks_head,
    v_sinks,
    v_sinks_stream,
    v_sinks_head,
    k_ring,
    k_ring_stream,
    k_ring_head,
    v_ring,
    v_ring_stream,
    v_ring_head,
    k_scales,
    v_scales,
    rows,
    positions,
    sink_positions,
    span_highest,
    span_total,
    span_out,
    num_sinks,
    window_size,
    span,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    OPERAND: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Attend from the query heads of one key/value head to `span` of its sinks and slots."""
    program, split = tl.program_id(0), tl.program_id(1)
    batch, head = program // NUM_KV_HEADS, program % NUM_KV_HEADS
    stream, position = tl.load(rows + batch), tl.load(positions + batch)
    first, last = split * span, (split + 1) * span

    member, dims = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    is_query = (member < GROUP_SIZE)[:, None] & (dims < KEY_DIM)[None, :]
    places = (program * GROUP_SIZE + member)[:, None] * KEY_DIM + dims[None, :]
    highest = tl.full((BLOCK_Q,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    out = tl.zeros((BLOCK_Q, BLOCK_V), tl.float32)

    if first < num_sinks:
        queries = tl.load(q_for_sinks + places, mask=is_query, other=0.0).to(OPERAND)
        keys_at = k_sinks + stream * k_sinks_stream + head * k_sinks_head
        values_at = v_sinks + stream * v_sinks_stream + head * v_sinks_head
        end = tl.minimum(last, num_sinks)
        for column in range(first, end, BLOCK_N):
            columns = column + tl.arange(0, BLOCK_N)
            sink_position = tl.load(sink_positions + columns, mask=columns < end, other=0)
            visible = (columns < end) & (sink_position <= position - window_size)
            keys, key_factors = load_tile(
                keys_at, k_scales, columns, visible, KEY_DIM, KEY_DIM, False, OPERAND, BLOCK_K
            )
            values, value_factors = load_tile(
                values_at, v_scales, columns, visible, VALUE_DIM, VALUE_DIM, False, OPERAND, BLOCK_V
            )
            highest, total, out = join_tile(
                queries, keys, values, key_factors, value_factors, visible[None, :],
                highest, total, out, scale, SOFTCAP,
            )  # fmt: skip

    queries = tl.load(q + places, mask=is_query, other=0.0).to(OPERAND)
    k_place = stream * k_ring_stream + head * k_ring_head
    v_place = stream * v_ring_stream + head * v_ring_head
    num_filled = tl.minimum(position + 1, window_size).to(tl.int32)
    end = tl.minimum(last - num_sinks, num_filled)
    for column in range(tl.maximum(first - num_sinks, 0), end, BLOCK_N):
        columns = column + tl.arange(0, BLOCK_N)
        visible = columns < end
        keys, key_factors = load_tile(
            k_ring + k_place, k_scales + k_place // 4, columns, visible,
            KEY_DIM, KEY_WIDTH, QUANTIZED, OPERAND, BLOCK_K,
        )  # fmt: skip
        values, value_factors = load_tile(
            v_ring + v_place, v_scales + v_place // 4, columns, visible,
            VALUE_DIM, VALUE_WIDTH, QUANTIZED, OPERAND, BLOCK_V,
        )  # fmt: skip
        highest, total, out = join_tile(
            queries, keys, values, key_factors, value_factors, visible[None, :],
            highest, total, out, scale, SOFTCAP,
        )  # fmt: skip

    members = (program * tl.num_programs(1) + split) * GROUP_SIZE + member
    tl.store(span_highest + members, highest, mask=member < GROUP_SIZE)
    tl.store(span_total + members, total, mask=member < GROUP_SIZE)
    width = tl.arange(0, BLOCK_V)
    is_value = (member < GROUP_SIZE)[:, None] & (width < VALUE_DIM)[None, :]
    tl.store(span_out + members[:, None] * VALUE_DIM + width[None, :], out, mask=is_value)


@triton.jit
def merge_spans(
    span_highest,
    span_total,
    span_out,
    sink_logits,
    out,
    num_spans,
    NUM_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SINK_LOGITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Merge the partial softmaxes of one query head."""
    query = tl.program_id(0)
    group, member = query // GROUP_SIZE, query % GROUP_SIZE
    spans, dims = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_V)
    exists = spans < num_spans
    places = (group * num_spans + spans) * GROUP_SIZE + member
    highest_of = tl.load(span_highest + places, mask=exists, other=LOWEST)
    total_of = tl.load(span_total + places, mask=exists, other=0.0)
    highest = tl.max(highest_of, axis=0)
    total = 0.0
    if HAS_SINK_LOGITS:
        learned = tl.load(sink_logits + query % NUM_HEADS).to(tl.float32)
        highest = tl.maximum(highest, learned)
        total = tl.exp(learned - highest)
    shares = tl.exp(highest_of - highest)
    total += tl.sum(shares * total_of, axis=0)
    tile = tl.load(
        span_out + places[:, None] * VALUE_DIM + dims[None, :],
        mask=exists[:, None] & (dims < VALUE_DIM)[None, :],
        other=0.0,
    )
    merged = tl.sum(shares[:, None] * tile, axis=0) / total
    tl.store(out + query * VALUE_DIM + dims, merged.to(out.dtype.element_ty), mask=dims < VALUE_DIM)
