// Checks of what operators are given; each refusal names the argument, its value and the remedy.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <limits>
#include <optional>

#include "kernels.h"

namespace streamingllm {

using OptionalTensor = std::optional<at::Tensor>;

// Kernels read plain memory of the processor, and no gradient passes through them.
inline void check_readable(const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.defined(), name, " is undefined; pass a tensor");
  TORCH_CHECK(x.device().is_cpu(), name, " is on ", x.device(), "; move it to the CPU");
  TORCH_CHECK(x.layout() == at::kStrided, name, " is ", x.layout(), "; pass a dense tensor");
  TORCH_CHECK(!x.requires_grad() || !at::GradMode::is_enabled(), name,
              " requires a gradient, which kernels do not compute; run under torch.no_grad()");
}

inline void check_shape(const char* name, const at::Tensor& x, at::IntArrayRef shape) {
  check_readable(name, x);
  TORCH_CHECK(x.sizes() == shape, name, " is ", x.sizes(), "; it must be ", shape);
}

inline void check_dims(const char* name, const at::Tensor& x, int64_t dims, const char* shape) {
  check_readable(name, x);
  TORCH_CHECK(x.dim() == dims, name, " is ", x.sizes(), "; it must be ", shape);
}

inline void check_dtype(const char* name, const at::Tensor& x, at::ScalarType dtype) {
  TORCH_CHECK(x.scalar_type() == dtype, name, " is ", x.scalar_type(), "; it must be ", dtype);
}

inline bool is_float(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
}

inline void check_float(const char* name, const at::Tensor& x) {
  TORCH_CHECK(is_float(x), name, " is ", x.scalar_type(), "; it must be float32 or bfloat16");
}

// Heads are read in whole vectors.
inline void check_head(const char* name, int64_t dim,
                       int64_t greatest = std::numeric_limits<int64_t>::max()) {
  TORCH_CHECK(dim > 0 && dim % kRowTile == 0 && dim <= greatest, name, " has heads of ", dim,
              " numbers; they must be a multiple of ", kRowTile, ", at most ", greatest);
}

// Rows are read in whole vectors, from the first number of each on.
inline void check_rows(const char* name, const at::Tensor& x, int64_t multiple) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) > 0 && x.size(-1) % multiple == 0, name, " is ", x.sizes(),
              "; its rows must have a multiple of ", multiple, " numbers");
}

// A learned logit for each head.
inline void check_logits(const char* name, const at::Tensor& x, int64_t num_heads) {
  check_shape(name, x, {num_heads});
  TORCH_CHECK(x.is_floating_point(), name, " is ", x.scalar_type(), "; it must be floating point");
}

}  // namespace streamingllm
