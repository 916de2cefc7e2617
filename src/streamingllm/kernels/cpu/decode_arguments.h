// What `decode_attention` is given, and the checks that its kernels rely on.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "checks.h"
#include "ring_buffers.h"

namespace streamingllm {

struct DecodeArguments {
  const at::Tensor &q, &q_for_sinks;
  const OptionalTensor &k, &v;
  const at::Tensor &k_cache, &v_cache;
  const OptionalTensor &k_undo, &v_undo, &k_sinks, &v_sinks;
  const at::Tensor &slots, &positions, &layout;
  const double scale, softcap;
  const OptionalTensor& sink_logits;

  bool is_quantized() const { return k_cache.scalar_type() == at::kChar; }
  int64_t batch() const { return q.size(0); }
  int64_t num_heads() const { return q.size(1); }
  int64_t num_kv_heads() const { return k_cache.size(1); }
  int64_t group_size() const { return num_heads() / num_kv_heads(); }
  int64_t key_dim() const { return q.size(2); }
  int64_t value_dim() const { return v_cache.size(3) - (is_quantized() ? kScaleBytes : 0); }
};

// Rows of a head lie side by side; heads and slots may lie anywhere.
inline void check_buffer(const char* name, const at::Tensor& x, at::IntArrayRef shape) {
  check_shape(name, x, shape);
  TORCH_CHECK(x.numel() == 0 || (x.stride(3) == 1 && x.stride(2) == x.size(3)), name,
              " has strides ", x.strides(), "; its rows must lie side by side");
}

inline void check_both(const char* k_name, const OptionalTensor& k, const char* v_name,
                       const OptionalTensor& v) {
  TORCH_CHECK(k.has_value() == v.has_value(), "one of ", k_name, " and ", v_name,
              " is None; pass both or neither");
}

inline void check_queries(const DecodeArguments& a) {
  check_dims("q", a.q, 3, "[batch, num_heads, head_dim]");
  check_float("q", a.q);
  check_shape("q_for_sinks", a.q_for_sinks, a.q.sizes());
  check_float("q_for_sinks", a.q_for_sinks);
  check_head("q", a.key_dim());
  TORCH_CHECK(a.softcap >= 0.0, "softcap=", a.softcap, " is negative; pass 0 for none");
  if (a.sink_logits) check_logits("sink_logits", *a.sink_logits, a.num_heads());
}

inline void check_caches(const DecodeArguments& a) {
  const char* shape = "[slots, num_kv_heads, entries, width]";
  check_dims("k_cache", a.k_cache, 4, shape);
  check_dims("v_cache", a.v_cache, 4, shape);
  TORCH_CHECK(a.is_quantized() || is_float(a.k_cache), "k_cache is ", a.k_cache.scalar_type(),
              "; it must be float32, bfloat16 or int8");
  check_dtype("v_cache", a.v_cache, a.k_cache.scalar_type());
  const int64_t slots = a.k_cache.size(0), heads = a.num_kv_heads(), entries = a.k_cache.size(2);
  TORCH_CHECK(heads > 0 && a.num_heads() > 0 && a.num_heads() % heads == 0, "q has ",
              a.num_heads(), " heads; they must be a multiple of the ", heads, " of k_cache");
  check_buffer("k_cache", a.k_cache,
               {slots, heads, entries, a.key_dim() + (a.is_quantized() ? kScaleBytes : 0)});
  check_buffer("v_cache", a.v_cache, {slots, heads, entries, a.v_cache.size(3)});
  check_head("v_cache", a.value_dim());

  check_both("k_sinks", a.k_sinks, "v_sinks", a.v_sinks);
  TORCH_CHECK(a.k_sinks.has_value() == a.is_quantized(), "k_cache is ", a.k_cache.scalar_type(),
              " and has its sinks ", a.k_sinks ? "beside" : "in",
              " it; an int8 cache has them beside it, any other in it");
}

inline void check_undo_and_sinks(const DecodeArguments& a) {
  const char* shape = "[slots, num_kv_heads, entries, width]";
  const int64_t slots = a.k_cache.size(0), heads = a.num_kv_heads();
  check_both("k_undo", a.k_undo, "v_undo", a.v_undo);
  if (a.k_undo) {
    check_dims("k_undo", *a.k_undo, 4, shape);
    check_buffer("k_undo", *a.k_undo, {slots, heads, a.k_undo->size(2), a.k_cache.size(3)});
    check_buffer("v_undo", *a.v_undo, {slots, heads, a.k_undo->size(2), a.v_cache.size(3)});
    check_dtype("k_undo", *a.k_undo, a.k_cache.scalar_type());
    check_dtype("v_undo", *a.v_undo, a.v_cache.scalar_type());
  }
  if (a.k_sinks) {
    check_dims("k_sinks", *a.k_sinks, 4, shape);
    check_buffer("k_sinks", *a.k_sinks, {slots, heads, a.k_sinks->size(2), a.key_dim()});
    check_buffer("v_sinks", *a.v_sinks, {slots, heads, a.k_sinks->size(2), a.value_dim()});
    check_float("k_sinks", *a.k_sinks);
    check_dtype("v_sinks", *a.v_sinks, a.k_sinks->scalar_type());
  }
}

inline void check_new_rows(const DecodeArguments& a) {
  check_both("k", a.k, "v", a.v);
  if (!a.k) return;
  check_shape("k", *a.k, {a.batch(), a.num_kv_heads(), a.key_dim()});
  check_shape("v", *a.v, {a.batch(), a.num_kv_heads(), a.value_dim()});
  if (a.is_quantized()) {
    check_float("k", *a.k);
    check_float("v", *a.v);
  } else {
    check_dtype("k", *a.k, a.k_cache.scalar_type());
    check_dtype("v", *a.v, a.v_cache.scalar_type());
  }
}

inline void check_token(const DecodeArguments& a, int64_t b, const Token& token) {
  const auto [slot, t, n, m, visible, length] = token;
  const int64_t entries = a.k_cache.size(2);
  const int64_t sink_entries = a.k_sinks ? a.k_sinks->size(2) : entries;
  TORCH_CHECK(slot >= 0 && slot < a.k_cache.size(0), "slots[", b, "]=", slot,
              " does not exist; there are ", a.k_cache.size(0), " slots");
  TORCH_CHECK(t >= 0, "positions[", b, "]=", t, " is negative; a stream begins at 0");
  TORCH_CHECK(n >= 0 && n <= sink_entries, "layout[0, ", b, "]=", n,
              " sinks do not fit; there are ", sink_entries, " entries");
  TORCH_CHECK(m >= 1 && m <= (a.k_sinks ? entries : entries - n), "layout[1, ", b, "]=", m,
              " is no window size that fits; k_cache has ", entries, " entries");
  TORCH_CHECK(visible >= 0 && visible <= n, "layout[2, ", b, "]=", visible,
              " sinks cannot be visible; the slot has ", n);
  TORCH_CHECK(length >= 1 && length <= m && length - 1 <= t, "layout[3, ", b, "]=", length,
              " is no visible length; it must be from 1 to ", m, " at stream position ", t);
}

// Check all that kernels rely on; return the tokens.
inline std::vector<Token> checked_tokens(const DecodeArguments& a) {
  check_queries(a);
  check_caches(a);
  check_undo_and_sinks(a);
  check_new_rows(a);
  check_shape("slots", a.slots, {a.batch()});
  check_shape("positions", a.positions, {a.batch()});
  check_shape("layout", a.layout, {4, a.batch()});
  check_dtype("slots", a.slots, at::kLong);
  check_dtype("positions", a.positions, at::kLong);
  check_dtype("layout", a.layout, at::kLong);
  const int64_t* slots = a.slots.const_data_ptr<int64_t>();
  const int64_t* positions = a.positions.const_data_ptr<int64_t>();
  const int64_t* layout = a.layout.const_data_ptr<int64_t>();
  const int64_t row = a.layout.stride(0), column = a.layout.stride(1);
  std::vector<Token> tokens(a.batch());
  for (int64_t b = 0; b < a.batch(); ++b) {
    const int64_t* own = layout + b * column;
    tokens[b] = {slots[b * a.slots.stride(0)], positions[b * a.positions.stride(0)],
                 own[0], own[row], own[2 * row], own[3 * row]};
    check_token(a, b, tokens[b]);
  }
  return tokens;
}

}  // namespace streamingllm
