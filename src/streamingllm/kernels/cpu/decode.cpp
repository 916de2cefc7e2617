// The operator `decode_attention` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "dispatch.h"
#include "shim.h"
#include "spans.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

constexpr int64_t kRunsPerThread = 4;

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
  TORCH_CHECK(quantized || element_of(fresh) == side.element, "k or v is ", fresh.scalar_type(),
              ": must have the cache's dtype");
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

// All heads of all streams: their queries, and the rows that they see.
std::vector<HeadGroup> head_groups(const Side& keys, const Side& values, const float* q,
                                   const float* q_for_sinks, const int64_t* streams,
                                   const int64_t* positions, const at::Tensor& sink_positions,
                                   HeadGroup shape, int64_t num_groups, int64_t num_kv_heads,
                                   Spans& spans) {
  const int64_t m = keys.window_size(), n = sink_positions.size(0);
  const int64_t* sinks = sink_positions.const_data_ptr<int64_t>();
  std::vector<HeadGroup> groups(num_groups, shape);
  for (int64_t g = 0; g < num_groups; ++g) {
    const int64_t b = g / num_kv_heads, h = g % num_kv_heads;
    const auto rows_of = [&](const Buffer& k, const Buffer& v, int64_t entry, Element element) {
      return Rows{k.row(streams[b], h, entry), v.row(streams[b], h, entry), k.row_bytes,
                  v.row_bytes, element};
    };
    HeadGroup& group = groups[g];
    group.q = q + g * shape.num_queries * shape.key_dim;
    group.q_for_sinks = q_for_sinks + g * shape.num_queries * shape.key_dim;
    group.sinks = rows_of(keys.sinks, values.sinks, 0, keys.sink_element);
    group.window = rows_of(keys.ring, values.ring, keys.first_slot, keys.element);
    group.num_sinks = std::upper_bound(sinks, sinks + n, positions[b] - m) - sinks;
    spans.set_columns(g, group.num_sinks + std::min(positions[b] + 1, m));
  }
  return groups;
}

// One token for each of several streams, no stream twice.
at::Tensor attend_one_each(const at::Tensor& q, const at::Tensor& q_for_sinks,
                           const OptionalTensor& k, const OptionalTensor& v, at::Tensor k_cache,
                           at::Tensor v_cache, const OptionalTensor& k_undo,
                           const OptionalTensor& v_undo, const OptionalTensor& k_sinks,
                           const OptionalTensor& v_sinks, const at::Tensor& rows,
                           const at::Tensor& positions, const at::Tensor& sink_positions,
                           double scale, double softcap, const OptionalTensor& sink_logits) {
  const Side keys(k_cache, k_undo, k_sinks, sink_positions.size(0));
  const Side values(v_cache, v_undo, v_sinks, sink_positions.size(0));
  const int64_t* streams = rows.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  if (k) write_tokens(*k, keys, streams, position);
  if (v) write_tokens(*v, values, streams, position);

  const int64_t num_kv_heads = k_cache.size(1), num_groups = q.size(0) * num_kv_heads;
  const int64_t value_dim = v_cache.size(-1) - (v_cache.scalar_type() == at::kChar ? 4 : 0);
  HeadGroup shape{};
  shape.num_queries = q.size(1) / num_kv_heads;
  shape.key_dim = q.size(2);
  shape.value_dim = value_dim;
  shape.softcap = static_cast<float>(softcap);
  static thread_local std::vector<float> q_floats, sink_floats;
  const int64_t num_runs = kRunsPerThread * at::get_num_threads();
  Spans spans(num_groups, num_runs);
  const std::vector<HeadGroup> groups =
      head_groups(keys, values, as_floats(q, scale, q_floats),
                  as_floats(q_for_sinks, scale, sink_floats), streams, position, sink_positions,
                  shape, num_groups, num_kv_heads, spans);
  const Partials partials(spans.count(), shape.num_queries, value_dim);
  parallel_for(num_runs, [&](int64_t run) {
    spans.of_run(run, [&](int64_t group, int64_t first, int64_t last, int64_t span) {
      kernels().attend_span(groups[group], first, last, partials.at(span));
    });
  });

  const at::Tensor learned = sink_logits ? sink_logits->to(at::kFloat).contiguous() : at::Tensor();
  const float* logits = sink_logits ? learned.const_data_ptr<float>() : nullptr;
  static thread_local std::vector<float> result;
  result.resize(q.size(0) * q.size(1) * value_dim);
  for (int64_t i = 0; i < q.size(0) * q.size(1); ++i)
    partials.merge(spans, i / shape.num_queries, i % shape.num_queries,
                   logits ? logits + i % q.size(1) : nullptr, result.data() + i * value_dim);
  const at::Tensor out = at::empty({q.size(0), q.size(1), value_dim}, q.options());
  kernels().from_floats(result.data(), out.numel(), out.mutable_data_ptr(), element_of(out));
  return out;
}

// Where a stream comes again for the first time since `first`; the end if none does.
int64_t first_repeated(const at::Tensor& rows, int64_t first) {
  const int64_t* streams = rows.const_data_ptr<int64_t>();
  int64_t last = first + 1;
  while (last < rows.size(0) &&
         std::find(streams + first, streams + last, streams[last]) == streams + last)
    ++last;
  return last;
}

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& q_for_sinks,
                            const OptionalTensor& k, const OptionalTensor& v, at::Tensor k_cache,
                            at::Tensor v_cache, const OptionalTensor& k_undo,
                            const OptionalTensor& v_undo, const OptionalTensor& k_sinks,
                            const OptionalTensor& v_sinks, const at::Tensor& rows,
                            const at::Tensor& positions, const at::Tensor& sink_positions,
                            double scale, double softcap, const OptionalTensor& sink_logits) {
  // A stream's next token may overwrite what this one sees, so its tokens take turns.
  std::vector<at::Tensor> parts;
  for (int64_t first = 0, last = 0; first < rows.size(0); first = last) {
    last = first_repeated(rows, first);
    const auto part = [&](const at::Tensor& x) {
      return last - first == x.size(0) ? x : x.slice(0, first, last);
    };
    parts.push_back(attend_one_each(
        part(q), part(q_for_sinks), k ? OptionalTensor(part(*k)) : k,
        v ? OptionalTensor(part(*v)) : v, k_cache, v_cache, k_undo, v_undo, k_sinks, v_sinks,
        part(rows), part(positions), sink_positions, scale, softcap, sink_logits));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_decode_attention(
    AtenTensorHandle q, AtenTensorHandle q_for_sinks, AtenTensorHandle* k, AtenTensorHandle* v,
    AtenTensorHandle k_cache, AtenTensorHandle v_cache, AtenTensorHandle* k_undo,
    AtenTensorHandle* v_undo, AtenTensorHandle* k_sinks, AtenTensorHandle* v_sinks,
    AtenTensorHandle rows, AtenTensorHandle positions, AtenTensorHandle sink_positions,
    double scale, double softcap, AtenTensorHandle* sink_logits, AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, decode_attention(
                        shim::tensor(q), shim::tensor(q_for_sinks), shim::optional(k),
                        shim::optional(v), shim::tensor(k_cache), shim::tensor(v_cache),
                        shim::optional(k_undo), shim::optional(v_undo), shim::optional(k_sinks),
                        shim::optional(v_sinks), shim::tensor(rows), shim::tensor(positions),
                        shim::tensor(sink_positions), scale, softcap,
                        shim::optional(sink_logits)));
  })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("decode_attention", &decode_attention);
}

}  // namespace streamingllm
