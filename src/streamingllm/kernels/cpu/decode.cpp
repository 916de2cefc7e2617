// The operator `decode_attention` on tensors; see kernels/reference.py for shapes.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "dispatch.h"

namespace streamingllm {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// A buffer [streams][heads][entries][bytes of a row].
struct Buffer {
  char* data = nullptr;
  int64_t num_entries = 0, row_bytes = 0, head_bytes = 0, stream_bytes = 0;

  Buffer() = default;
  explicit Buffer(const at::Tensor& x)
      : data(static_cast<char*>(x.mutable_data_ptr())),
        num_entries(x.size(2)),
        row_bytes(x.size(3) * x.element_size()),
        head_bytes(x.stride(1) * x.element_size()),
        stream_bytes(x.stride(0) * x.element_size()) {
    TORCH_CHECK(x.stride(3) == 1 && x.stride(2) == x.size(3), "rows must lie side by side");
  }
  explicit Buffer(const OptionalTensor& x) : Buffer(x ? Buffer(*x) : Buffer()) {}

  char* row(int64_t stream, int64_t head, int64_t entry) const {
    return data + stream * stream_bytes + head * head_bytes + entry * row_bytes;
  }
};

// The keys, or the values, of all streams.
struct Side {
  Buffer ring, undo, sinks;
  Element element, sink_element;
  int64_t first_slot;  // entries of `ring` that are sinks

  Side(const at::Tensor& cache, const OptionalTensor& undo_ring, const OptionalTensor& own_sinks,
       int64_t num_sinks)
      : ring(cache),
        undo(undo_ring),
        sinks(own_sinks ? Buffer(*own_sinks) : Buffer(cache)),
        element(element_of(cache)),
        sink_element(own_sinks ? element_of(*own_sinks) : element),
        first_slot(own_sinks ? 0 : num_sinks) {}

  int64_t window_size() const { return ring.num_entries - first_slot; }
};

void quantize_row(const float* x, int64_t dim, char* row) {
  float greatest = 0.0f;
  for (int64_t d = 0; d < dim; ++d) greatest = std::max(greatest, std::fabs(x[d]));
  const float scale = greatest / 127.0f;
  const float inverse = greatest > 0.0f ? 127.0f / greatest : 0.0f;
  for (int64_t d = 0; d < dim; ++d) row[d] = static_cast<char>(std::nearbyint(x[d] * inverse));
  std::memcpy(row + dim, &scale, sizeof scale);
}

// Put new rows [batch][heads][dim] into the rings; the undo rings take what they overwrite.
void write_tokens(const at::Tensor& fresh, const Side& side, const int64_t* streams,
                  const int64_t* positions) {
  const int64_t batch = fresh.size(0), heads = fresh.size(1), dim = fresh.size(2);
  const int64_t m = side.window_size();
  const bool quantized = side.element == Element::kInt8;
  const at::Tensor rows = (quantized ? fresh.to(at::kFloat) : fresh).contiguous();
  const char* from = static_cast<const char*>(rows.const_data_ptr());
  const int64_t row_bytes = dim * rows.element_size();
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t t = positions[b];
    for (int64_t h = 0; h < heads; ++h, from += row_bytes) {
      char* row = side.ring.row(streams[b], h, side.first_slot + t % m);
      if (side.undo.num_entries > 0 && t >= m)
        std::memcpy(side.undo.row(streams[b], h, (t - m) % side.undo.num_entries), row,
                    side.ring.row_bytes);
      if (quantized)
        quantize_row(reinterpret_cast<const float*>(from), dim, row);
      else
        std::memcpy(row, from, row_bytes);
    }
  }
}

struct Span {
  int64_t group, first, last;
};
using Runs = std::vector<std::vector<Span>>;

// Cut the columns of all groups, laid end to end, into one run of equal length per thread.
Runs split(const std::vector<int64_t>& columns, int64_t num_threads) {
  int64_t total = 0;
  for (int64_t c : columns) total += c;
  Runs runs(num_threads);
  int64_t offset = 0, thread = 0;
  for (size_t g = 0; g < columns.size(); ++g) {
    for (int64_t first = 0; first < columns[g];) {
      const int64_t end = (thread + 1) * total / num_threads;
      const int64_t last = std::min(columns[g], end - offset);
      if (last > first) runs[thread].push_back({static_cast<int64_t>(g), first, last});
      if (last >= end - offset) ++thread;
      first = std::max(first, last);
    }
    offset += columns[g];
  }
  return runs;
}

// Partial softmaxes, one for each span, and how they become one.
class Partials {
 public:
  Partials(const Runs& runs, int64_t num_groups, int64_t num_queries, int64_t value_dim)
      : num_queries_(num_queries), value_dim_(value_dim), of_group_(num_groups) {
    int64_t count = 0;
    for (const auto& run : runs) {
      first_.push_back(count);
      for (const Span& span : run) of_group_[span.group].push_back(count++);
    }
    floats_.resize(count * num_queries * (2 + value_dim));
  }

  Partial at(int64_t i) {
    float* p = floats_.data() + i * num_queries_ * (2 + value_dim_);
    return {p, p + num_queries_, p + 2 * num_queries_};
  }
  Partial at(int64_t thread, int64_t i) { return at(first_[thread] + i); }

  // out [value_dim] of one query; `learned` is null, or a score that has no value.
  void merge(int64_t group, int64_t query, const float* learned, float* out) {
    float highest = learned ? *learned : -INFINITY;
    for (int64_t i : of_group_[group]) highest = std::max(highest, at(i).maximum[query]);
    float total = learned ? std::exp(*learned - highest) : 0.0f;
    std::fill(out, out + value_dim_, 0.0f);
    for (int64_t i : of_group_[group]) {
      const Partial part = at(i);
      const float share = std::exp(part.maximum[query] - highest);
      total += share * part.total[query];
      const float* from = part.out + query * value_dim_;
      for (int64_t d = 0; d < value_dim_; ++d) out[d] += share * from[d];
    }
    for (int64_t d = 0; d < value_dim_; ++d) out[d] /= total;
  }

 private:
  int64_t num_queries_, value_dim_;
  std::vector<std::vector<int64_t>> of_group_;
  std::vector<int64_t> first_;
  std::vector<float> floats_;
};

at::Tensor scaled(const at::Tensor& q, double scale) {
  return q.to(at::kFloat).mul(scale).contiguous();
}

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& q_for_sinks,
                            const OptionalTensor& k, const OptionalTensor& v, at::Tensor k_cache,
                            at::Tensor v_cache, const OptionalTensor& k_undo,
                            const OptionalTensor& v_undo, const OptionalTensor& k_sinks,
                            const OptionalTensor& v_sinks, const at::Tensor& rows,
                            const at::Tensor& positions, const at::Tensor& sink_positions,
                            double scale, double softcap, const OptionalTensor& sink_logits) {
  const int64_t n = sink_positions.size(0);
  const Side keys(k_cache, k_undo, k_sinks, n), values(v_cache, v_undo, v_sinks, n);
  const int64_t* streams = rows.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  if (k) write_tokens(*k, keys, streams, position);
  if (v) write_tokens(*v, values, streams, position);

  const int64_t batch = q.size(0), num_heads = q.size(1), key_dim = q.size(2);
  const int64_t num_kv_heads = k_cache.size(1), per_group = num_heads / num_kv_heads;
  const int64_t m = keys.window_size();
  const int64_t value_dim =
      v_cache.size(-1) - (values.element == Element::kInt8 ? sizeof(float) : 0);
  const at::Tensor q_window = scaled(q, scale);
  const at::Tensor q_sinks = n > 0 ? scaled(q_for_sinks, scale) : q_window;
  std::vector<HeadGroup> groups;
  std::vector<int64_t> columns;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t* first = sink_positions.const_data_ptr<int64_t>();
    const int64_t outside = std::upper_bound(first, first + n, position[b] - m) - first;
    for (int64_t h = 0; h < num_kv_heads; ++h) {
      const int64_t offset = static_cast<int64_t>(groups.size()) * per_group * key_dim;
      const auto rows_of = [&](const Buffer& k_rows, const Buffer& v_rows, int64_t entry,
                               Element element) {
        return Rows{k_rows.row(streams[b], h, entry), v_rows.row(streams[b], h, entry),
                    k_rows.row_bytes, v_rows.row_bytes, element};
      };
      groups.push_back({q_window.const_data_ptr<float>() + offset,
                        q_sinks.const_data_ptr<float>() + offset,
                        rows_of(keys.sinks, values.sinks, 0, keys.sink_element),
                        rows_of(keys.ring, values.ring, keys.first_slot, keys.element), outside,
                        per_group, key_dim, value_dim, static_cast<float>(softcap)});
      columns.push_back(outside + std::min(position[b] + 1, m));
    }
  }

  const int64_t num_threads = at::get_num_threads();
  const Runs runs = split(columns, num_threads);
  Partials partials(runs, groups.size(), per_group, value_dim);
  at::parallel_for(0, num_threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (size_t i = 0; i < runs[t].size(); ++i) {
        const Span& span = runs[t][i];
        kernels().attend_span(groups[span.group], span.first, span.last, partials.at(t, i));
      }
  });

  const at::Tensor out = at::empty({batch, num_heads, value_dim}, q_window.options());
  const at::Tensor learned = sink_logits ? sink_logits->to(at::kFloat).contiguous() : at::Tensor();
  const float* logits = sink_logits ? learned.const_data_ptr<float>() : nullptr;
  for (int64_t i = 0; i < batch * num_heads; ++i)
    partials.merge(i / per_group, i % per_group, logits ? logits + i % num_heads : nullptr,
                   out.mutable_data_ptr<float>() + i * value_dim);
  return out.to(q.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("decode_attention", &decode_attention);
}

}  // namespace streamingllm
