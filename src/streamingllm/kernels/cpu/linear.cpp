// The operators `linear` and `dense_linear` on tensors; see kernels/reference.py for shapes.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace streamingllm {
namespace {

// Give each thread one run of `count` things.
template <typename Work>
void in_equal_runs(int64_t count, const Work& work) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) work(t * count / threads, (t + 1) * count / threads);
  });
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                  const std::optional<at::Tensor>& minimums) {
  const int64_t num_tiles = scales.size(0), num_groups = scales.size(1);
  const int64_t num_rows = num_tiles * kRowTile, dim = num_groups * kGroup;
  TORCH_CHECK(x.size(-1) == dim, "x has ", x.size(-1), " features: must have ", dim);
  const at::Tensor values = x.reshape({-1, dim}).to(at::kFloat).contiguous();
  const int64_t batch = values.size(0);
  const int bits = static_cast<int>(codes.size(1) / num_groups);

  std::vector<int16_t> x_codes(batch * dim);
  std::vector<float> x_scales(batch * num_groups), x_sums(batch * num_groups);
  kernels().quantize_activations(values.const_data_ptr<float>(), batch * num_groups,
                                 x_codes.data(), x_scales.data(), x_sums.data());
  const Activations activations{x_codes.data(), x_scales.data(), x_sums.data(), batch, num_groups};

  at::Tensor out = at::empty({batch, num_rows}, values.options());
  float* result = out.mutable_data_ptr<float>();
  const auto half = [](const at::Tensor& t) {
    return static_cast<const uint16_t*>(t.const_data_ptr());
  };
  const int32_t* all_codes = codes.const_data_ptr<int32_t>();
  const uint16_t* all_scales = half(scales);
  const uint16_t* all_minimums = minimums ? half(*minimums) : nullptr;
  in_equal_runs(num_tiles, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t group = i * num_groups * kRowTile;
      const QuantizedTile tile{all_codes + group * bits, all_scales + group,
                               all_minimums ? all_minimums + group : nullptr, bits};
      kernels().multiply_quantized(tile, activations, result + i * kRowTile, num_rows);
    }
  });
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  return out.view(shape).to(x.scalar_type());
}

at::Tensor dense_linear(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t num_rows = weight.size(0), dim = weight.size(1);
  const at::Tensor values = x.reshape({-1, dim}).to(at::kFloat).contiguous();
  const int64_t batch = values.size(0), row_bytes = dim * weight.element_size();
  at::Tensor out = at::empty({batch, num_rows}, values.options());
  float* result = out.mutable_data_ptr<float>();
  const char* rows = static_cast<const char*>(weight.const_data_ptr());
  const Element element = element_of(weight);
  const float* x_values = values.const_data_ptr<float>();
  in_equal_runs(num_rows, [&](int64_t first, int64_t last) {
    kernels().multiply_dense(rows + first * row_bytes, element, x_values, batch, dim, last - first,
                             result + first, num_rows);
  });
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  return out.view(shape).to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("linear", &linear);
  library.impl("dense_linear", &dense_linear);
}

}  // namespace streamingllm
