// The operators `linear` and `dense_linear` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "shim.h"
#include "team.h"

namespace streamingllm {
namespace {

// The tiles of a packed weight; see kernels/packing.py.
class Tiles {
 public:
  Tiles(const at::Tensor& codes, const at::Tensor& scales,
        const std::optional<at::Tensor>& minimums)
      : num_groups(scales.size(1)),
        count(scales.size(0)),
        bits(static_cast<int>(codes.size(1) / num_groups)),
        codes_(codes.const_data_ptr<int32_t>()),
        scales_(static_cast<const uint16_t*>(scales.const_data_ptr())),
        minimums_(minimums ? static_cast<const uint16_t*>(minimums->const_data_ptr()) : nullptr) {}

  QuantizedTile operator[](int64_t i) const {
    const int64_t first = i * num_groups * kRowTile;
    return {codes_ + first * bits, scales_ + first, minimums_ ? minimums_ + first : nullptr, bits};
  }

  const int64_t num_groups, count;
  const int bits;

 private:
  const int32_t* codes_;
  const uint16_t *scales_, *minimums_;
};

// A result [batch][num_rows] in the dtype of x, of which threads write runs of rows as floats.
class Product {
 public:
  Product(const at::Tensor& x, int64_t batch, int64_t num_rows) : batch_(batch), rows_(num_rows) {
    auto shape = x.sizes().vec();
    shape.back() = num_rows;
    out = at::empty(shape, x.options());
    element_ = element_of(out);
    floats_.resize(batch * num_rows);
    numbers = floats_.data();
    bytes_ = static_cast<char*>(out.mutable_data_ptr());
  }

  // Round rows [first, last), which are finished.
  void round(int64_t first, int64_t last) const {
    const int64_t size = element_ == Element::kFloat32 ? 4 : 2;
    for (int64_t b = 0; b < batch_; ++b)
      kernels().from_floats(numbers + b * rows_ + first, last - first,
                            bytes_ + (b * rows_ + first) * size, element_);
  }

  at::Tensor out;
  float* numbers;

 private:
  int64_t batch_, rows_;
  Element element_;
  char* bytes_;
  static thread_local std::vector<float> floats_;  // kept from step to step
};

thread_local std::vector<float> Product::floats_;

at::Tensor linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                  const std::optional<at::Tensor>& minimums) {
  const Tiles tiles(codes, scales, minimums);
  const int64_t dim = tiles.num_groups * kGroup, num_rows = tiles.count * kRowTile;
  TORCH_CHECK(x.size(-1) == dim, "x has ", x.size(-1), " features: must have ", dim);
  const int64_t batch = x.numel() / dim, num_groups = batch * tiles.num_groups;
  static thread_local std::vector<float> x_floats, x_scales, x_sums;
  static thread_local std::vector<int16_t> x_codes;
  x_codes.resize(batch * dim);
  x_scales.resize(num_groups);
  x_sums.resize(num_groups);
  kernels().quantize_activations(as_floats(x, 1.0, x_floats), num_groups, x_codes.data(),
                                 x_scales.data(), x_sums.data());
  const Activations activations{x_codes.data(), x_scales.data(), x_sums.data(), batch,
                                tiles.num_groups};
  const Product product(x, batch, num_rows);
  share_out_runs(tiles.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      kernels().multiply_quantized(tiles[i], activations, product.numbers + i * kRowTile, num_rows);
    product.round(first * kRowTile, last * kRowTile);
  });
  return product.out;
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
  const Tiles tiles(codes, scales, minimums);
  const int64_t num_groups = tiles.num_groups, tile_numbers = kRowTile * num_groups * kGroup;
  const bool is_bfloat16 = dtype == at::kBFloat16;
  const at::Tensor out = at::empty({tiles.count * kRowTile, num_groups * kGroup},
                                   codes.options().dtype(is_bfloat16 ? dtype : at::kFloat));
  const auto unpack = [&](auto* rows) {
    share_out_in_pass(tiles.count, [&](int64_t i) {
      tiles.bits == 4 ? unpack_tile<4>(tiles[i], num_groups, rows + i * tile_numbers)
                      : unpack_tile<8>(tiles[i], num_groups, rows + i * tile_numbers);
    });
  };
  if (is_bfloat16)
    unpack(out.mutable_data_ptr<at::BFloat16>());
  else
    unpack(out.mutable_data_ptr<float>());
  return out.to(dtype);
}

at::Tensor dense_linear(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t num_rows = weight.size(0), dim = weight.size(1), batch = x.numel() / dim;
  if (dim % kRowTile != 0 || !weight.is_contiguous())  // rows are read in whole vectors
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  static thread_local std::vector<float> x_floats;
  const float* numbers = as_floats(x, 1.0, x_floats);
  const Product product(x, batch, num_rows);
  const char* rows = static_cast<const char*>(weight.const_data_ptr());
  const int64_t row_bytes = dim * weight.element_size();
  const Element element = element_of(weight);
  share_out_runs(num_rows, [&](int64_t first, int64_t last) {
    kernels().multiply_dense(rows + first * row_bytes, element, numbers, batch, dim, last - first,
                             product.numbers + first, num_rows);
    product.round(first, last);
  });
  return product.out;
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_linear(AtenTensorHandle x, AtenTensorHandle codes,
                                                AtenTensorHandle scales,
                                                AtenTensorHandle* minimums,
                                                AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, linear(shim::tensor(x), shim::tensor(codes), shim::tensor(scales),
                           shim::optional(minimums)));
  })
}

extern "C" AOTITorchError aoti_torch_cpu_dense_linear(AtenTensorHandle x, AtenTensorHandle weight,
                                                      AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE(
      { shim::give(out, dense_linear(shim::tensor(x), shim::tensor(weight))); })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("linear", &linear);
  library.impl("dense_linear", &dense_linear);
  library.impl("dequantize", &dequantize);
}

}  // namespace streamingllm
