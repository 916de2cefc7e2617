// The operator `windowed_attention` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

constexpr int64_t kTaskRows = 96;  // query rows that share a walk over the columns
constexpr int64_t kTasksPerThread = 4;

// A run of the columns of all key/value heads, packed.
class Packed {
 public:
  Packed(const MatmulKernels& kernels_for_dtype, const at::Tensor& k, const at::Tensor& v, int64_t first, int64_t last)
      : key_lanes_(kColumnBlock * k.size(3) / kernels_for_dtype.per_lane),
        value_lanes_(kColumnBlock * v.size(3) / kernels_for_dtype.per_lane),
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
      kernels_for_dtype.pack(rows, std::min<int64_t>(last - column, kColumnBlock), k.size(3), v.size(3),
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

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  for (const at::Tensor* x : {&k, &v})
    TORCH_CHECK(x->scalar_type() == q.scalar_type(), "k and v must be ", q.scalar_type(),
                " as q is");
  for (int64_t dim : {k.size(3), v.size(3)})
    TORCH_CHECK(dim % 16 == 0 && dim <= kGreatestDim, "a head of ", dim,
                " numbers: must be a multiple of 16 up to ", kGreatestDim);
  TORCH_CHECK(scale > 0, "scale=", scale, ": must be positive");
}

at::Tensor windowed_attention(const at::Tensor& queries, const at::Tensor& queries_for_sinks,
                              const at::Tensor& keys, const at::Tensor& values,
                              const at::Tensor& sinks_seen, int64_t num_sinks, int64_t window_size,
                              double scale, double softcap, const OptionalTensor& sink_logits) {
  check(queries, keys, values, scale);
  const at::Tensor q = with_whole_rows(queries), q_for_sinks = with_whole_rows(queries_for_sinks);
  const at::Tensor k = with_whole_rows(keys), v = with_whole_rows(values);
  const int64_t batch = q.size(0), num_kv_heads = k.size(1), per_group = q.size(1) / num_kv_heads;
  const int64_t seq = q.size(2), num_old = k.size(2) - num_sinks - seq;

  const MatmulKernels& kernels_for_dtype = matmul_kernels_for(element_of(q));
  const Packed sinks(kernels_for_dtype, k, v, 0, num_sinks), window(kernels_for_dtype, k, v, num_sinks, k.size(2));
  const std::vector<int64_t> none(seq, 0);
  std::vector<int64_t> first(seq), last(seq);
  for (int64_t i = 0; i < seq; ++i) {
    last[i] = num_old + i + 1;
    first[i] = std::max<int64_t>(0, last[i] - window_size);
  }
  const at::Tensor seen = sinks_seen.contiguous();
  const at::Tensor learned = sink_logits ? sink_logits->to(at::kFloat).contiguous() : at::Tensor();
  const float* logits = sink_logits ? learned.const_data_ptr<float>() : nullptr;

  // Token by token in memory, as the next product reads it.
  const at::Tensor out = at::empty({batch, seq, q.size(1), v.size(3)}, q.options()).transpose(1, 2);
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
    std::vector<int32_t> scratch(kernels_for_dtype.count_scratch(task));
    kernels_for_dtype.attend(task, scratch.data());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("windowed_attention", &windowed_attention);
}

}  // namespace streamingllm
