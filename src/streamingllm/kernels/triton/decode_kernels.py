"""The Triton kernels of `decode_attention` that attend in spans and merge the spans.

Nothing here depends on the host. Slots, positions and layout are read on the device, so a captured
graph can be replayed for any of them. A token whose slot or layout does not fit the buffers writes
nothing, and its result is nan.
"""

import triton
import triton.language as tl

from streamingllm.kernels.triton.tiles import LOWEST, join_tile, load_tile
from streamingllm.kernels.triton.write_kernel import read_token


@triton.jit
def attend_spans(
    q,
    q_for_sinks,
    k_sinks,
    k_sinks_slot,
    k_sinks_head,
    v_sinks,
    v_sinks_slot,
    v_sinks_head,
    k_cache,
    k_cache_slot,
    k_cache_head,
    v_cache,
    v_cache_slot,
    v_cache_head,
    k_scales,
    v_scales,
    slots,
    positions,
    layout,
    span_highest,
    span_total,
    span_out,
    batch_size,
    num_slots,
    entries,
    sink_entries,
    span,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    WRITES: tl.constexpr,
    OPERAND: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Attend from the query heads of one key/value head to `span` of its visible columns.

    Columns are the visible sinks, then the visible window from its oldest token on; a whole ring
    begins at its first entry.
    """
    program, split = tl.program_id(0), tl.program_id(1)
    batch, head = program // NUM_KV_HEADS, program % NUM_KV_HEADS
    slot, position, num_sinks, window_size, visible_sinks, window_length, fits = read_token(
        slots, positions, layout, batch, batch_size, num_slots, entries, sink_entries,
        QUANTIZED, WRITES, BLOCK_B,
    )  # fmt: skip
    first, last = split * span, (split + 1) * span

    member, dims = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    is_query = (member < GROUP_SIZE)[:, None] & (dims < KEY_DIM)[None, :]
    places = (program * GROUP_SIZE + member)[:, None] * KEY_DIM + dims[None, :]
    highest = tl.full((BLOCK_Q,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    out = tl.zeros((BLOCK_Q, BLOCK_V), tl.float32)

    if first < visible_sinks:
        queries = tl.load(q_for_sinks + places, mask=is_query, other=0.0).to(OPERAND)
        keys_at = k_sinks + slot * k_sinks_slot + head * k_sinks_head
        values_at = v_sinks + slot * v_sinks_slot + head * v_sinks_head
        end = tl.minimum(last, visible_sinks)
        for column in range(first, end, BLOCK_N):
            columns = column + tl.arange(0, BLOCK_N)
            visible = columns < end
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
    k_place = slot * k_cache_slot + head * k_cache_head
    v_place = slot * v_cache_slot + head * v_cache_head
    oldest = ((position - window_length + 1) % window_size).to(tl.int32)
    oldest = tl.where(window_length == window_size, 0, oldest)
    first_entry = 0 if QUANTIZED else num_sinks
    end = tl.minimum(last - visible_sinks, window_length)
    for column in range(tl.maximum(first - visible_sinks, 0), end, BLOCK_N):
        columns = column + tl.arange(0, BLOCK_N)
        visible = columns < end
        in_ring = columns + oldest
        in_ring = tl.where(in_ring < window_size, in_ring, in_ring - window_size)
        in_ring += first_entry
        keys, key_factors = load_tile(
            k_cache + k_place, k_scales + k_place // 4, in_ring, visible,
            KEY_DIM, KEY_WIDTH, QUANTIZED, OPERAND, BLOCK_K,
        )  # fmt: skip
        values, value_factors = load_tile(
            v_cache + v_place, v_scales + v_place // 4, in_ring, visible,
            VALUE_DIM, VALUE_WIDTH, QUANTIZED, OPERAND, BLOCK_V,
        )  # fmt: skip
        highest, total, out = join_tile(
            queries, keys, values, key_factors, value_factors, visible[None, :],
            highest, total, out, scale, SOFTCAP,
        )  # fmt: skip

    total = tl.where(fits, total, float("nan"))
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
