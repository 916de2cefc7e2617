// The operators `quantized_linear` and `linear` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "products.h"
#include "shim.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// Refuse what is no packed weight; see kernels/packing.py.
void check_packed(const at::Tensor& codes, const at::Tensor& scales,
                  const OptionalTensor& minimums) {
  check_dims("scales", scales, 3, "[out_features / 16, in_features / 32, 16]");
  check_shape("scales", scales, {scales.size(0), scales.size(1), kRowTile});
  check_dtype("scales", scales, at::kHalf);
  const int64_t tiles = scales.size(0), groups = scales.size(1);
  TORCH_CHECK(groups > 0, "scales is ", scales.sizes(), "; it must have a group of 32 features");
  check_dims("codes", codes, 3, "[out_features / 16, in_features * bits / 32, 16]");
  check_dtype("codes", codes, at::kInt);
  const int64_t bits = codes.size(1) / groups;
  TORCH_CHECK(bits == 4 || bits == 8, "codes is ", codes.sizes(), " beside scales ",
              scales.sizes(), "; a code must have 4 or 8 bits");
  check_shape("codes", codes, {tiles, groups * bits, kRowTile});
  TORCH_CHECK(codes.is_contiguous() && scales.is_contiguous(),
              "codes and scales must be contiguous; pass what pack_weight returns");
  if (!minimums) return;
  check_shape("minimums", *minimums, scales.sizes());
  check_dtype("minimums", *minimums, at::kHalf);
  TORCH_CHECK(minimums->is_contiguous(),
              "minimums must be contiguous; pass what pack_weight returns");
}

// The tiles of a packed weight; see kernels/packing.py.
class Tiles {
 public:
  Tiles(const at::Tensor& codes, const at::Tensor& scales, const OptionalTensor& minimums)
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

at::Tensor quantized_linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                            const OptionalTensor& minimums) {
  check_packed(codes, scales, minimums);
  const Tiles tiles(codes, scales, minimums);
  const int64_t dim = tiles.num_groups * kGroup, num_rows = tiles.count * kRowTile;
  check_activations(x, dim);
  if (x.numel() == 0 || num_rows == 0) return empty_for(x, num_rows);
  if (!is_float(x))
    return quantized_linear(x.to(at::kFloat), codes, scales, minimums).to(x.scalar_type());
  const auto unpack = [&](const MatmulKernels& matmul, int64_t i, int32_t* panel) {
    matmul.unpack_tile(tiles[i], tiles.num_groups, panel);
  };
  if (unpacks_weights(x, dim)) return multiply_many_tiles(x, num_rows, unpack);
  const QuantizedActivations activations(x, dim, tiles.bits);
  const auto multiply = [&](int64_t i, const Activations& rows, float* out, int64_t stride) {
    kernels().multiply_quantized(tiles[i], rows, out, stride);
  };
  return multiply_tiles(x, activations.get(), num_rows, multiply);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  check_dims("weight", weight, 2, "[out_features, in_features]");
  TORCH_CHECK(weight.is_floating_point(), "weight is ", weight.scalar_type(),
              "; it must be floating point");
  const int64_t num_rows = weight.size(0), dim = weight.size(1);
  check_activations(x, dim);
  const bool in_vectors = dim > 0 && dim % kRowTile == 0 && weight.is_contiguous();
  if (!in_vectors || !is_float(weight) || !is_float(x))
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  if (x.numel() == 0 || num_rows == 0) return empty_for(x, num_rows);
  const char* rows = static_cast<const char*>(weight.const_data_ptr());
  const int64_t batch = x.numel() / dim, row_bytes = dim * weight.element_size();
  const Element element = element_of(weight);
  if (batch >= kManyRows && x.scalar_type() == weight.scalar_type()) {
    const auto fill = [&](const MatmulKernels& matmul, int64_t row, int32_t* panel) {
      matmul.pack_weights(rows + row * row_bytes, element, row_bytes,
                          std::min<int64_t>(kPanelRows, num_rows - row), dim, panel);
    };
    return multiply_many(x, num_rows, fill);
  }
  static thread_local std::vector<float> x_floats;
  const float* numbers = as_floats(x, 1.0, x_floats);
  const Product product(x, batch, num_rows);
  parallel_for_ranges(num_rows, [&](int64_t first, int64_t last) {
    kernels().multiply_dense(rows + first * row_bytes, element, numbers, batch, dim, last - first,
                             product.numbers + first, product.stride);
    product.round(first, last);
  });
  return product.out;
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_quantized_linear(
    AtenTensorHandle x, AtenTensorHandle codes, AtenTensorHandle scales,
    AtenTensorHandle* minimums, AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, quantized_linear(shim::tensor(x), shim::tensor(codes), shim::tensor(scales),
                                     shim::optional(minimums)));
  })
}

extern "C" AOTITorchError aoti_torch_cpu_linear(AtenTensorHandle x, AtenTensorHandle weight,
                                                      AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE(
      { shim::give(out, streamingllm::linear(shim::tensor(x), shim::tensor(weight))); })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("quantized_linear", &quantized_linear);
  library.impl("linear", &linear);
}

}  // namespace streamingllm
