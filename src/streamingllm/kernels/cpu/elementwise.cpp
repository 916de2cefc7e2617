// `rms_norm`, `swish_gate` and `rotate` on tensors; see kernels/reference.py for shapes.
#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

#include "checks.h"
#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

constexpr int64_t kRowsAtOnce = 32;

// Call `work` with the byte at which each row of x begins.
template <typename Work>
void each_row(const at::Tensor& x, const Work& work) {
  const int64_t dim = x.size(-1), row_bytes = dim * x.element_size(), rows = x.numel() / dim;
  parallel_for_torch((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t i) {
    const int64_t last = std::min(rows, (i + 1) * kRowsAtOnce);
    for (int64_t row = i * kRowsAtOnce; row < last; ++row) work(row * row_bytes);
  });
}

at::Tensor rms_norm(const at::Tensor& numbers, const at::Tensor& weight, double epsilon) {
  check_readable("x", numbers);
  check_float("x", numbers);
  check_rows("x", numbers, kRowTile);
  check_shape("weight", weight, {numbers.size(-1)});
  check_dtype("weight", weight, numbers.scalar_type());
  const at::Tensor x = numbers.contiguous(), factors = weight.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options());
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  each_row(x, [&](int64_t row) {
    kernels().normalize(from + row, factors.const_data_ptr(), element_of(x), x.size(-1),
                        static_cast<float>(epsilon), to + row);
  });
  return out;
}

at::Tensor swish_gate(const at::Tensor& gates, const at::Tensor& numbers) {
  check_readable("x", numbers);
  check_float("x", numbers);
  check_rows("x", numbers, kRowTile);
  check_shape("gate", gates, numbers.sizes());
  check_dtype("gate", gates, numbers.scalar_type());
  const at::Tensor gate = gates.contiguous(), x = numbers.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options());
  const auto* gate_from = static_cast<const char*>(gate.const_data_ptr());
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  each_row(x, [&](int64_t row) {
    kernels().swish_gate(gate_from + row, from + row, element_of(x), x.size(-1), to + row);
  });
  return out;
}

// The table of a rotation for each token of x [batch, heads, seq, 2 * pairs].
at::Tensor checked_table(const char* name, const at::Tensor& table, const at::Tensor& x) {
  check_readable(name, table);
  check_dtype(name, table, x.scalar_type());
  const std::array<int64_t, 4> shape{x.size(0), 1, x.size(2), x.size(3) / 2};
  TORCH_CHECK(at::is_expandable_to(table.sizes(), shape), name, " is ", table.sizes(),
              "; it must expand to ", at::IntArrayRef(shape));
  return with_whole_rows(table.expand(shape));
}

at::Tensor rotate(const at::Tensor& numbers, const at::Tensor& cosines, const at::Tensor& sines) {
  check_dims("x", numbers, 4, "[batch, heads, seq, dim]");
  check_float("x", numbers);
  check_rows("x", numbers, 2 * kRowTile);
  const at::Tensor x = with_whole_rows(numbers), out = at::empty(x.sizes(), x.options());
  const int64_t batch = x.size(0), heads = x.size(1), seq = x.size(2), pairs = x.size(3) / 2;
  const at::Tensor c = checked_table("cosines", cosines, x), s = checked_table("sines", sines, x);
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
