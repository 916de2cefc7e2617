"""The Triton kernels of `decode_attention`: write the tokens, attend in spans, merge the spans.

Nothing here depends on the host: slots, positions and layout are read on the device, so a captured
graph can be replayed for any of them. A token whose slot or layout does not fit the buffers writes
nothing, and its result is nan.
"""

import triton
import triton.language as tl

from streamingllm.kernels.triton.tiles import LOWEST, join_tile, load_tile

# Added and taken away again, it leaves a float32 below 2^22 rounded to the nearest, ties to even.
_ROUNDER = tl.constexpr(12582912.0)


@triton.jit
def read_token(
    slots,
    positions,
    layout,
    batch,
    batch_size,
    num_slots,
    entries,
    sink_entries,
    QUANTIZED: tl.constexpr,
    WRITES: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Return a token's slot, position and column of `layout`, and whether they fit the buffers.

    A token that does not fit gets numbers with which nothing is read. Two tokens that write to one
    slot do not fit, because each would see what the other overwrites.
    """
    slot, position = tl.load(slots + batch), tl.load(positions + batch)
    num_sinks, window_size = tl.load(layout + batch), tl.load(layout + batch_size + batch)
    visible_sinks = tl.load(layout + 2 * batch_size + batch)
    window_length = tl.load(layout + 3 * batch_size + batch)
    room = entries + 0 * num_sinks if QUANTIZED else entries - num_sinks
    fits = (slot >= 0) & (slot < num_slots) & (position >= 0)
    fits = fits & (num_sinks >= 0) & (num_sinks <= sink_entries)
    fits = fits & (window_size >= 1) & (window_size <= room)
    fits = fits & (visible_sinks >= 0) & (visible_sinks <= num_sinks)
    fits = fits & (window_length >= 1) & (window_length <= window_size)
    fits = fits & (window_length <= position + 1)
    if WRITES:
        others = tl.arange(0, BLOCK_B)
        same = tl.load(slots + others, mask=others < batch_size, other=-1) == slot
        fits = fits & (tl.sum(same.to(tl.int32), axis=0) == 1)
    slot, position = tl.where(fits, slot, 0), tl.where(fits, position, 0)
    num_sinks = tl.where(fits, num_sinks, 0).to(tl.int32)
    window_size = tl.where(fits, window_size, 1).to(tl.int32)
    visible_sinks = tl.where(fits, visible_sinks, 0).to(tl.int32)
    window_length = tl.where(fits, window_length, 0).to(tl.int32)
    return slot, position, num_sinks, window_size, visible_sinks, window_length, fits


@triton.jit
def write_tokens(
    k,
    v,
    k_cache,
    k_cache_slot,
    k_cache_head,
    v_cache,
    v_cache_slot,
    v_cache_head,
    k_scales,
    v_scales,
    k_undo,
    k_undo_slot,
    k_undo_head,
    v_undo,
    v_undo_slot,
    v_undo_head,
    slots,
    positions,
    layout,
    batch_size,
    num_slots,
    entries,
    sink_entries,
    undo_size,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Write the key and the value of one head of one token into their rings."""
    program = tl.program_id(0)
    batch, head = program // NUM_KV_HEADS, program % NUM_KV_HEADS
    slot, position, num_sinks, window_size, _, _, fits = read_token(
        slots, positions, layout, batch, batch_size, num_slots, entries, sink_entries,
        QUANTIZED, True, BLOCK_B,
    )  # fmt: skip
    if fits:
        entry = position % window_size
        entry = entry if QUANTIZED else entry + num_sinks
        k_place = slot * k_cache_slot + head * k_cache_head
        v_place = slot * v_cache_slot + head * v_cache_head
        _write_row(
            k + program * KEY_DIM, k_cache + k_place, k_scales + k_place // 4,
            k_undo + slot * k_undo_slot + head * k_undo_head,
            position, entry, window_size, undo_size, KEY_DIM, KEY_WIDTH, QUANTIZED, BLOCK_K,
        )  # fmt: skip
        _write_row(
            v + program * VALUE_DIM, v_cache + v_place, v_scales + v_place // 4,
            v_undo + slot * v_undo_slot + head * v_undo_head,
            position, entry, window_size, undo_size, VALUE_DIM, VALUE_WIDTH, QUANTIZED, BLOCK_V,
        )  # fmt: skip


@triton.jit
def _write_row(
    new,
    cache,
    scales,
    undo,
    position,
    entry,
    window_size,
    undo_size,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    numbers = tl.arange(0, BLOCK)
    if (undo_size > 0) & (position >= window_size):
        old = tl.load(cache + entry * WIDTH + numbers, mask=numbers < WIDTH)
        place = (position - window_size) % undo_size
        tl.store(undo + place * WIDTH + numbers, old, mask=numbers < WIDTH)
        tl.debug_barrier()  # no thread may write before all have read
    x = tl.load(new + numbers, mask=numbers < DIM, other=0.0)
    if QUANTIZED:
        x = x.to(tl.float32)
        greatest = tl.max(tl.abs(x), axis=0)
        inverse = tl.div_rn(127.0, tl.where(greatest > 0, greatest, 1.0))
        tl.store(scales + entry * (WIDTH // 4) + DIM // 4, tl.div_rn(greatest, 127.0))
        x = (x * inverse + _ROUNDER) - _ROUNDER
    tl.store(cache + entry * WIDTH + numbers, x.to(cache.dtype.element_ty), mask=numbers < DIM)


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
