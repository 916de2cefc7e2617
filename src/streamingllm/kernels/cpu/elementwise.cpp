// The operators `rms_norm` and `swish_gate` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>

#include "dispatch.h"
#include "team.h"

namespace streamingllm {
namespace {

constexpr int64_t kRowsAtOnce = 32;

// Call `work` with the byte at which each row of x begins.
template <typename Work>
void each_row(const at::Tensor& x, const Work& work) {
  const int64_t dim = x.size(-1), row_bytes = dim * x.element_size(), rows = x.numel() / dim;
  TORCH_CHECK(dim % kRowTile == 0, "rows of ", dim, " numbers: must be a multiple of ", kRowTile);
  share_out_in_pass((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t i) {
    const int64_t last = std::min(rows, (i + 1) * kRowsAtOnce);
    for (int64_t row = i * kRowsAtOnce; row < last; ++row) work(row * row_bytes);
  });
}

at::Tensor rms_norm(const at::Tensor& numbers, const at::Tensor& weight, double epsilon) {
  TORCH_CHECK(weight.scalar_type() == numbers.scalar_type(), "weight must be ",
              numbers.scalar_type(), " as x is");
  const at::Tensor x = numbers.contiguous(), factors = weight.contiguous();
  const at::Tensor out = at::empty_like(x);
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  each_row(x, [&](int64_t row) {
    kernels().normalize(from + row, factors.const_data_ptr(), element_of(x), x.size(-1),
                        static_cast<float>(epsilon), to + row);
  });
  return out;
}

at::Tensor swish_gate(const at::Tensor& gates, const at::Tensor& numbers) {
  TORCH_CHECK(gates.sizes() == numbers.sizes() && gates.scalar_type() == numbers.scalar_type(),
              "gate must be of the shape and type of x");
  const at::Tensor gate = gates.contiguous(), x = numbers.contiguous();
  const at::Tensor out = at::empty_like(x);
  const auto* gate_from = static_cast<const char*>(gate.const_data_ptr());
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  each_row(x, [&](int64_t row) {
    kernels().swish_gate(gate_from + row, from + row, element_of(x), x.size(-1), to + row);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("rms_norm", &rms_norm);
  library.impl("swish_gate", &swish_gate);
}

}  // namespace streamingllm
