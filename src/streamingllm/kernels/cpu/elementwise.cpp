// `rms_norm`, `swish_gate` and `rotate` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>

#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

constexpr int64_t kRowsAtOnce = 32;

// Call `work` with the byte at which each row of x begins.
template <typename Work>
void each_row(const at::Tensor& x, const Work& work) {
  const int64_t dim = x.size(-1), row_bytes = dim * x.element_size(), rows = x.numel() / dim;
  TORCH_CHECK(dim % kRowTile == 0, "rows of ", dim, " numbers: must be a multiple of ", kRowTile);
  parallel_for_torch((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t i) {
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

at::Tensor rotate(const at::Tensor& numbers, const at::Tensor& cosines, const at::Tensor& sines) {
  TORCH_CHECK(numbers.dim() == 4, "x must be [batch, heads, seq, dim]");
  const at::Tensor x = with_whole_rows(numbers), out = at::empty_like(x);
  const int64_t batch = x.size(0), heads = x.size(1), seq = x.size(2), pairs = x.size(3) / 2;
  TORCH_CHECK(x.size(3) % (2 * kRowTile) == 0, "a head of ", x.size(3),
              " numbers: must be a multiple of ", 2 * kRowTile);
  TORCH_CHECK(cosines.scalar_type() == x.scalar_type() && sines.scalar_type() == x.scalar_type(),
              "cosines and sines must be ", x.scalar_type(), " as x is");
  const at::Tensor c = with_whole_rows(cosines.expand({batch, 1, seq, pairs}));
  const at::Tensor s = with_whole_rows(sines.expand({batch, 1, seq, pairs}));
  const int64_t runs = (seq + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_for_torch(batch * runs, [&](int64_t i) {
    const int64_t stream = i / runs, first = i % runs * kRowsAtOnce;
    for (int64_t token = first; token < std::min(seq, first + kRowsAtOnce); ++token)
      kernels().rotate(heads_of(x, stream, 0, token), heads, heads_of(c, stream, 0, token).data,
                       heads_of(s, stream, 0, token).data, element_of(x), pairs,
                       heads_of(out, stream, 0, token));
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("rms_norm", &rms_norm);
  library.impl("swish_gate", &swish_gate);
  library.impl("rotate", &rotate);
}

}  // namespace streamingllm
