// The operators `token_nll` and `argmax` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max.h>
#include <torch/library.h>

#include "checks.h"
#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// Logits [rows, vocab] of which each row lies together.
at::Tensor checked_rows(const at::Tensor& logits) {
  TORCH_CHECK(logits.size(1) > 0, "logits is ", logits.sizes(), "; its rows must not be empty");
  return with_whole_rows(logits);
}

at::Tensor token_nll(const at::Tensor& logits, const at::Tensor& targets) {
  check_dims("logits", logits, 2, "[seq, vocab]");
  check_float("logits", logits);
  check_shape("targets", targets, {logits.size(0)});
  check_dtype("targets", targets, at::kLong);
  const at::Tensor rows = checked_rows(logits), wanted = targets.contiguous();
  const int64_t vocab = rows.size(1), row_bytes = rows.stride(0) * rows.element_size();
  const int64_t* target = wanted.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < wanted.numel(); ++i)
    TORCH_CHECK(target[i] >= 0 && target[i] < vocab, "targets[", i, "]=", target[i],
                " is not in the vocabulary; it must be from 0 to ", vocab - 1);
  const at::Tensor out = at::empty({rows.size(0)}, rows.options().dtype(at::kFloat));
  float* nll = out.mutable_data_ptr<float>();
  const char* first = static_cast<const char*>(rows.const_data_ptr());
  parallel_for_torch(rows.size(0), [&](int64_t i) {
    nll[i] = kernels().negative_log_likelihood(first + i * row_bytes, element_of(rows), vocab,
                                                 target[i]);
  });
  return out;
}

at::Tensor argmax(const at::Tensor& logits) {
  TORCH_CHECK(logits.dim() == 2, "logits is ", logits.sizes(), "; it must be [batch, vocab]");
  const at::Tensor rows = checked_rows(logits);  // no gradient is lost: a choice has none
  if (!is_float(rows)) return std::get<1>(at::max(rows, -1));
  const at::Tensor out = at::empty({rows.size(0)}, rows.options().dtype(at::kLong));
  const int64_t row_bytes = rows.stride(0) * rows.element_size();
  const char* first = static_cast<const char*>(rows.const_data_ptr());
  int64_t* found = out.mutable_data_ptr<int64_t>();
  parallel_for(rows.size(0), [&](int64_t i) {
    found[i] = kernels().argmax(first + i * row_bytes, element_of(rows), rows.size(1));
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("token_nll", &token_nll);
  library.impl("argmax", &argmax);
}

}  // namespace streamingllm
