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

QuantizedTile tile_of(const at::Tensor& codes, const at::Tensor& scales,
                      const std::optional<at::Tensor>& minimums, int64_t number) {
  const auto half = [](const at::Tensor& t) {
    return static_cast<const uint16_t*>(t.const_data_ptr());
  };
  const int64_t first = number * scales.size(1) * kRowTile;
  const int bits = static_cast<int>(codes.size(1) / scales.size(1));
  return {codes.const_data_ptr<int32_t>() + first * bits, half(scales) + first,
          minimums ? half(*minimums) + first : nullptr, bits};
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                  const std::optional<at::Tensor>& minimums) {
  const int64_t num_tiles = scales.size(0), num_groups = scales.size(1);
  const int64_t num_rows = num_tiles * kRowTile, dim = num_groups * kGroup;
  TORCH_CHECK(x.size(-1) == dim, "x has ", x.size(-1), " features: must have ", dim);
  const at::Tensor values = x.reshape({-1, dim}).to(at::kFloat).contiguous();
  const int64_t batch = values.size(0);

  std::vector<int16_t> x_codes(batch * dim);
  std::vector<float> x_scales(batch * num_groups), x_sums(batch * num_groups);
  kernels().quantize_activations(values.const_data_ptr<float>(), batch * num_groups,
                                 x_codes.data(), x_scales.data(), x_sums.data());
  const Activations activations{x_codes.data(), x_scales.data(), x_sums.data(), batch, num_groups};

  at::Tensor out = at::empty({batch, num_rows}, values.options());
  float* result = out.mutable_data_ptr<float>();
  in_equal_runs(num_tiles, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const QuantizedTile tile = tile_of(codes, scales, minimums, i);
      kernels().multiply_quantized(tile, activations, result + i * kRowTile, num_rows);
    }
  });
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  return out.view(shape).to(x.scalar_type());
}

// The tile's rows as floats, row by row; `write` rounds them to the element wanted.
template <int kBits, typename T>
void unpack_tile(const QuantizedTile& w, int64_t num_groups, T* rows) {
  constexpr int kPerLane = 32 / kBits;
  const int64_t dim = num_groups * kGroup;
  for (int64_t g = 0; g < num_groups; ++g)
    for (int r = 0; r < kRowTile; ++r) {
      const float scale = static_cast<float>(reinterpret_cast<const at::Half*>(w.scales)[g * kRowTile + r]);
      const float minimum =
          w.minimums ? static_cast<float>(reinterpret_cast<const at::Half*>(w.minimums)[g * kRowTile + r])
          : kBits == 4 ? -8.0f * scale
                       : 0.0f;
      for (int j = 0; j < kBits; ++j) {
        const int32_t lane = w.codes[(g * kBits + j) * kRowTile + r];
        for (int i = 0; i < kPerLane; ++i) {
          const int32_t code = lane >> (kBits * (i / 2) + 16 * (i % 2));
          const float value = kBits == 4 ? code & 15 : static_cast<int8_t>(code);
          rows[r * dim + g * kGroup + j * kPerLane + i] = static_cast<T>(value * scale + minimum);
        }
      }
    }
}

at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& scales,
                      const std::optional<at::Tensor>& minimums, at::ScalarType dtype) {
  const int64_t num_tiles = scales.size(0), num_groups = scales.size(1);
  const int64_t tile_numbers = kRowTile * num_groups * kGroup;
  const int bits = static_cast<int>(codes.size(1) / num_groups);
  const bool is_bfloat16 = dtype == at::kBFloat16;
  const at::Tensor out = at::empty({num_tiles * kRowTile, num_groups * kGroup},
                                   codes.options().dtype(is_bfloat16 ? dtype : at::kFloat));
  const auto unpack = [&](auto* rows) {
    in_equal_runs(num_tiles, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const QuantizedTile tile = tile_of(codes, scales, minimums, i);
        bits == 4 ? unpack_tile<4>(tile, num_groups, rows + i * tile_numbers)
                  : unpack_tile<8>(tile, num_groups, rows + i * tile_numbers);
      }
    });
  };
  if (is_bfloat16)
    unpack(out.mutable_data_ptr<at::BFloat16>());
  else
    unpack(out.mutable_data_ptr<float>());
  return out.to(dtype);
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
  library.impl("dequantize", &dequantize);
}

}  // namespace streamingllm
