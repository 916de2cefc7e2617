// The operator `decode_attention` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "decode_arguments.h"
#include "dispatch.h"
#include "ring_buffers.h"
#include "shim.h"
#include "spans.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

constexpr int64_t kRunsPerThread = 4;

// The rows that a token's slot has of one head, from an entry on.
Rows rows_of(const Buffer& keys, const Buffer& values, const Token& token, int64_t head,
             int64_t entry, Element element) {
  return {keys.row(token.slot, head, entry), values.row(token.slot, head, entry), keys.row_bytes,
          values.row_bytes, element};
}

// The query heads of one key/value head, and what they see. The visible window is a circular run of
// the ring's entries that ends at the token's own; a whole ring is walked from its first entry.
HeadGroup head_group(HeadGroup group, const Side& keys, const Side& values, const Token& token,
                     int64_t head) {
  const int64_t m = token.window_size, length = token.window_length;
  const int64_t start = length == m ? 0 : (token.position - length + 1) % m;
  const int64_t first = keys.first_entry(token);
  group.sinks = rows_of(keys.sinks, values.sinks, token, head, 0, keys.sink_element);
  group.window = rows_of(keys.ring, values.ring, token, head, first + start, keys.element);
  group.wrapped = rows_of(keys.ring, values.ring, token, head, first, keys.element);
  group.num_sinks = token.visible_sinks;
  group.num_unwrapped = std::min(length, m - start);
  return group;
}

// The queries of a step and its results, as floats.
struct StepFloats {
  const float* q;  // [batch][num_heads][key_dim], times the scale of the scores
  const float* q_for_sinks;
  const float* sink_logits;  // [num_heads], or null
  float* out;                // [batch][num_heads][value_dim]
};

// Attend from the tokens [first, last), of which no two are of one slot.
void attend(const DecodeArguments& a, const Side& keys, const Side& values,
            const std::vector<Token>& tokens, int64_t first, int64_t last,
            const StepFloats& floats) {
  const int64_t num_kv_heads = a.num_kv_heads(), num_groups = (last - first) * num_kv_heads;
  HeadGroup shape{};
  shape.num_queries = a.group_size();
  shape.key_dim = a.key_dim();
  shape.value_dim = a.value_dim();
  shape.softcap = static_cast<float>(a.softcap);
  const int64_t num_runs = kRunsPerThread * at::get_num_threads();
  Spans spans(num_groups, num_runs);
  std::vector<HeadGroup> groups(num_groups, shape);
  for (int64_t g = 0; g < num_groups; ++g) {
    const Token& token = tokens[first + g / num_kv_heads];
    const int64_t queries = (first * num_kv_heads + g) * shape.num_queries * shape.key_dim;
    groups[g].q = floats.q + queries;
    groups[g].q_for_sinks = floats.q_for_sinks + queries;
    groups[g] = head_group(groups[g], keys, values, token, g % num_kv_heads);
    spans.set_columns(g, token.visible_sinks + token.window_length);
  }
  const Partials partials(spans.count(), shape.num_queries, shape.value_dim);
  parallel_for(num_runs, [&](int64_t run) {
    spans.of_run(run, [&](int64_t group, int64_t begin, int64_t end, int64_t span) {
      kernels().attend_span(groups[group], begin, end, partials.at(span));
    });
  });
  const int64_t num_heads = a.num_heads();
  for (int64_t i = 0; i < (last - first) * num_heads; ++i)
    partials.merge(spans, i / shape.num_queries, i % shape.num_queries,
                   floats.sink_logits ? floats.sink_logits + i % num_heads : nullptr,
                   floats.out + (first * num_heads + i) * shape.value_dim);
}

// Find the first token after `first` whose slot came before; return the end if there is none.
int64_t first_repeated(const std::vector<Token>& tokens, int64_t first) {
  const auto same_slot = [&](int64_t i, int64_t j) { return tokens[i].slot == tokens[j].slot; };
  const int64_t count = static_cast<int64_t>(tokens.size());
  for (int64_t last = first + 1; last < count; ++last)
    for (int64_t i = first; i < last; ++i)
      if (same_slot(i, last)) return last;
  return count;
}

// New rows [batch][heads][dim] as they are written into a ring.
at::Tensor rows_to_write(const at::Tensor& rows, bool is_quantized) {
  return (is_quantized ? rows.to(at::kFloat) : rows).contiguous();
}

void write(const at::Tensor& rows, const Side& side, const std::vector<Token>& tokens,
           int64_t first, int64_t last) {
  const int64_t heads = rows.size(1), dim = rows.size(2);
  const char* from = static_cast<const char*>(rows.const_data_ptr());
  for (int64_t b = first; b < last; ++b)
    write_token(from + b * heads * dim * rows.element_size(), heads, dim, side, tokens[b]);
}

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& q_for_sinks,
                            const OptionalTensor& k, const OptionalTensor& v, at::Tensor k_cache,
                            at::Tensor v_cache, const OptionalTensor& k_undo,
                            const OptionalTensor& v_undo, const OptionalTensor& k_sinks,
                            const OptionalTensor& v_sinks, const at::Tensor& slots,
                            const at::Tensor& positions, const at::Tensor& layout, double scale,
                            double softcap, const OptionalTensor& sink_logits) {
  const DecodeArguments a{q,       q_for_sinks, k,       v,       k_cache,   v_cache,
                          k_undo,  v_undo,      k_sinks, v_sinks, slots,     positions,
                          layout,  scale,       softcap, sink_logits};
  const std::vector<Token> tokens = checked_tokens(a);
  const at::Tensor out = at::empty({a.batch(), a.num_heads(), a.value_dim()}, q.options());
  const Side keys(k_cache, k_undo, k_sinks), values(v_cache, v_undo, v_sinks);
  const at::Tensor new_keys = k ? rows_to_write(*k, a.is_quantized()) : at::Tensor();
  const at::Tensor new_values = v ? rows_to_write(*v, a.is_quantized()) : at::Tensor();
  const at::Tensor learned = sink_logits ? sink_logits->to(at::kFloat).contiguous() : at::Tensor();

  static thread_local std::vector<float> q_floats, sink_floats, result;
  result.resize(out.numel());
  const StepFloats floats{as_floats(q, scale, q_floats), as_floats(q_for_sinks, scale, sink_floats),
                          sink_logits ? learned.const_data_ptr<float>() : nullptr, result.data()};
  // A slot's next token may overwrite what this one sees, so a slot's tokens come one by one.
  for (int64_t first = 0, last; first < a.batch(); first = last) {
    last = first_repeated(tokens, first);
    if (k) write(new_keys, keys, tokens, first, last);
    if (v) write(new_values, values, tokens, first, last);
    attend(a, keys, values, tokens, first, last, floats);
  }
  kernels().from_floats(result.data(), out.numel(), out.mutable_data_ptr(), element_of(out));
  return out;
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_decode_attention(
    AtenTensorHandle q, AtenTensorHandle q_for_sinks, AtenTensorHandle* k, AtenTensorHandle* v,
    AtenTensorHandle k_cache, AtenTensorHandle v_cache, AtenTensorHandle* k_undo,
    AtenTensorHandle* v_undo, AtenTensorHandle* k_sinks, AtenTensorHandle* v_sinks,
    AtenTensorHandle slots, AtenTensorHandle positions, AtenTensorHandle layout, double scale,
    double softcap, AtenTensorHandle* sink_logits, AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, decode_attention(
                        shim::tensor(q), shim::tensor(q_for_sinks), shim::optional(k),
                        shim::optional(v), shim::tensor(k_cache), shim::tensor(v_cache),
                        shim::optional(k_undo), shim::optional(v_undo), shim::optional(k_sinks),
                        shim::optional(v_sinks), shim::tensor(slots), shim::tensor(positions),
                        shim::tensor(layout), scale, softcap, shim::optional(sink_logits)));
  })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("decode_attention", &decode_attention);
}

}  // namespace streamingllm
