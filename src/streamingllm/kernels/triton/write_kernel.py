"""The Triton kernel that writes the tokens of `decode_attention`, and how kernels read a token."""

import triton
import triton.language as tl

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
