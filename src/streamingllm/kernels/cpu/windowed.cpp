// The operator `windowed_attention` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

constexpr int64_t kTaskRows = 96;  // query rows that share a walk over the columns
constexpr int64_t kTasksPerThread = 4;

// A run of the columns of all key/value heads, packed.
class Packed {
 public:
  Packed(const MatmulKernels& matmul, const at::Tensor& k, const at::Tensor& v, int64_t first,
         int64_t last)
      : key_lanes_(kColumnBlock * k.size(3) / matmul.per_lane),
        value_lanes_(kColumnBlock * v.size(3) / matmul.per_lane),
        num_blocks_((last - first + kColumnBlock - 1) / kColumnBlock) {
    const int64_t num_kv_heads = k.size(1), num_heads = k.size(0) * num_kv_heads;
    lanes_ = at::empty({num_heads * num_blocks_ * (key_lanes_ + value_lanes_)},
                       k.options().dtype(at::kInt));
    const auto row = [&](const at::Tensor& x, int64_t head, int64_t column) {
      const int64_t i = head / num_kv_heads * x.stride(0) + head % num_kv_heads * x.stride(1) +
                        column * x.stride(2);
      return static_cast<const char*>(x.const_data_ptr()) + i * x.element_size();
    };
    parallel_for_torch(num_heads * num_blocks_, [&](int64_t i) {
      const int64_t head = i / num_blocks_, block = i % num_blocks_;
      const int64_t column = first + block * kColumnBlock;
      const Rows rows{row(k, head, column), row(v, head, column), k.stride(2) * k.element_size(),
                      v.stride(2) * v.element_size(), element_of(k)};
      const PackedBlock of_head = blocks(head);
      matmul.pack(rows, std::min<int64_t>(last - column, kColumnBlock), k.size(3), v.size(3),
                  {of_head.keys + block * key_lanes_, of_head.values + block * value_lanes_});
    });
  }

  PackedBlock blocks(int64_t head) const {
    if (num_blocks_ == 0) return {nullptr, nullptr};
    int32_t* keys = lanes_.mutable_data_ptr<int32_t>() +
                    head * num_blocks_ * (key_lanes_ + value_lanes_);
    return {keys, keys + num_blocks_ * key_lanes_};
  }

 private:
  int64_t key_lanes_, value_lanes_, num_blocks_;
  at::Tensor lanes_;
};

// Refuse what the kernels cannot read.
void check(const at::Tensor& q, const at::Tensor& q_for_sinks, const at::Tensor& k,
           const at::Tensor& v, int64_t num_sinks, double scale, double softcap,
           const OptionalTensor& sink_logits) {
  check_dims("q", q, 4, "[batch, num_heads, seq, head_dim]");
  check_dims("k", k, 4, "[batch, num_kv_heads, columns, head_dim]");
  check_dims("v", v, 4, "[batch, num_kv_heads, columns, value_dim]");
  check_float("q", q);
  const int64_t num_kv_heads = k.size(1), columns = k.size(2);
  TORCH_CHECK(num_kv_heads > 0 && q.size(1) > 0 && q.size(1) % num_kv_heads == 0, "q has ",
              q.size(1), " heads; they must be a multiple of the ", num_kv_heads, " of k");
  check_shape("q_for_sinks", q_for_sinks, q.sizes());
  check_shape("k", k, {q.size(0), num_kv_heads, columns, q.size(3)});
  check_shape("v", v, {q.size(0), num_kv_heads, columns, v.size(3)});
  check_dtype("q_for_sinks", q_for_sinks, q.scalar_type());
  check_dtype("k", k, q.scalar_type());
  check_dtype("v", v, q.scalar_type());
  check_head("k", k.size(3), kGreatestDim);
  check_head("v", v.size(3), kGreatestDim);
  TORCH_CHECK(num_sinks >= 0 && num_sinks <= columns - q.size(2), "num_sinks=", num_sinks,
              " is out of range; it must be from 0 to ", columns - q.size(2));
  TORCH_CHECK(scale > 0.0, "scale=", scale, " is not positive; pass a positive factor");
  TORCH_CHECK(softcap >= 0.0, "softcap=", softcap, " is negative; pass 0 for none");
  if (sink_logits) check_logits("sink_logits", *sink_logits, q.size(1));
}

// How many of `available(i)` each query sees, as int64 numbers that lie together.
template <typename Available>
at::Tensor checked_counts(const char* name, const at::Tensor& counts, int64_t seq, int64_t least,
                          const Available& available) {
  check_shape(name, counts, {seq});
  check_dtype(name, counts, at::kLong);
  const at::Tensor dense = counts.contiguous();
  const int64_t* count = dense.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < seq; ++i)
    TORCH_CHECK(count[i] >= least && count[i] <= available(i), name, "[", i, "]=", count[i],
                " is out of range; it must be from ", least, " to ", available(i));
  return dense;
}

at::Tensor windowed_attention(const at::Tensor& queries, const at::Tensor& queries_for_sinks,
                              const at::Tensor& keys, const at::Tensor& values,
                              const at::Tensor& sinks_seen, const at::Tensor& window_lengths,
                              int64_t num_sinks, double scale, double softcap,
                              const OptionalTensor& sink_logits) {
  check(queries, queries_for_sinks, keys, values, num_sinks, scale, softcap, sink_logits);
  const at::Tensor q = with_whole_rows(queries), q_for_sinks = with_whole_rows(queries_for_sinks);
  const at::Tensor k = with_whole_rows(keys), v = with_whole_rows(values);
  const int64_t batch = q.size(0), num_kv_heads = k.size(1), per_group = q.size(1) / num_kv_heads;
  const int64_t seq = q.size(2), num_old = k.size(2) - num_sinks - seq;
  const at::Tensor seen =
      checked_counts("sinks_seen", sinks_seen, seq, 0, [&](int64_t) { return num_sinks; });
  const at::Tensor lengths = checked_counts("window_lengths", window_lengths, seq, 1,
                                            [&](int64_t i) { return num_old + i + 1; });
  // Token by token in memory, as the next product reads it.
  const at::Tensor out = at::empty({batch, seq, q.size(1), v.size(3)}, q.options()).transpose(1, 2);
  if (out.numel() == 0) return out;

  const MatmulKernels& matmul = matmul_kernels_for(element_of(q));
  const Packed sinks(matmul, k, v, 0, num_sinks), window(matmul, k, v, num_sinks, k.size(2));
  const std::vector<int64_t> none(seq, 0);
  std::vector<int64_t> first(seq), last(seq);
  for (int64_t i = 0; i < seq; ++i) {
    last[i] = num_old + i + 1;
    first[i] = last[i] - lengths.const_data_ptr<int64_t>()[i];
  }
  const at::Tensor learned = sink_logits ? sink_logits->to(at::kFloat).contiguous() : at::Tensor();
  const float* logits = sink_logits ? learned.const_data_ptr<float>() : nullptr;

  const int64_t groups = batch * num_kv_heads;
  const int64_t fair_rows = groups * seq * per_group / (kTasksPerThread * at::get_num_threads());
  const int64_t task_rows = std::clamp<int64_t>(fair_rows, kTaskRows / 4, kTaskRows);
  const int64_t task_queries = std::max<int64_t>(1, task_rows / per_group);
  const int64_t tasks_per_group = (seq + task_queries - 1) / task_queries;
  parallel_for_torch(groups * tasks_per_group, [&](int64_t i) {
    const int64_t group = i / tasks_per_group, query = i % tasks_per_group * task_queries;
    const int64_t stream = group / num_kv_heads, head = group % num_kv_heads * per_group;
    const WindowedTask task{
        heads_of(q, stream, head, query), heads_of(q_for_sinks, stream, head, query),
        heads_of(out, stream, head, query), element_of(q),
        {sinks.blocks(group), none.data(), seen.const_data_ptr<int64_t>() + query},
        {window.blocks(group), first.data() + query, last.data() + query},
        std::min(task_queries, seq - query), per_group, k.size(3), v.size(3),
        static_cast<float>(scale), static_cast<float>(softcap), logits ? logits + head : nullptr};
    std::vector<int32_t> scratch(matmul.count_scratch(task));
    matmul.attend(task, scratch.data());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("windowed_attention", &windowed_attention);
}

}  // namespace streamingllm
