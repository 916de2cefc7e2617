// The operators `quantized_linear` and `linear` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "shim.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// Unpacking pays from this batch on: at 16 rows it was 10 % slower, at 24 it was 15 % faster.
constexpr int64_t kManyRows = 20;
constexpr int64_t kTasksPerThread = 3;

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

// Activations [..., dim].
void check_activations(const at::Tensor& x, int64_t dim) {
  check_readable("x", x);
  TORCH_CHECK(x.is_floating_point(), "x is ", x.scalar_type(), "; it must be floating point");
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == dim, "x is ", x.sizes(), "; it must have ", dim,
              " features");
}

// An empty result for activations.
at::Tensor empty_for(const at::Tensor& x, int64_t num_rows) {
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  return at::empty(shape, x.options());
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

// A result [batch][num_rows] in the dtype of x, of which threads write runs of rows as floats.
class Product {
 public:
  Product(const at::Tensor& x, int64_t batch, int64_t num_rows) : batch_(batch), rows_(num_rows) {
    out = empty_for(x, num_rows);
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

// Products with a few activations, which end when the weights have been read.
at::Tensor multiply_few(const at::Tensor& x, const Tiles& tiles) {
  const int64_t dim = tiles.num_groups * kGroup, num_rows = tiles.count * kRowTile;
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
  parallel_for_ranges(tiles.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      kernels().multiply_quantized(tiles[i], activations, product.numbers + i * kRowTile, num_rows);
    product.round(first * kRowTile, last * kRowTile);
  });
  return product.out;
}

// The 32-bit lanes that activations are made of, contiguous and aligned.
at::Tensor lanes_of(const at::Tensor& x, int64_t per_lane) {
  const at::Tensor dense = (per_lane == 1 ? x.to(at::kFloat) : x).contiguous();
  const auto address = reinterpret_cast<uintptr_t>(dense.const_data_ptr());
  return address % sizeof(int32_t) == 0 ? dense : dense.clone();
}

// Products with many activations. Weights reach their dtype panel by panel: `fill` lays out
// kPanelRows of them, from a row on.
template <typename Fill>
at::Tensor multiply_many(const at::Tensor& x, int64_t num_rows, const Fill& fill) {
  const Element element = element_of(x);
  const MatmulKernels& matmul = matmul_kernels_for(element);
  const at::Tensor dense = lanes_of(x, matmul.per_lane);
  const auto* lanes = static_cast<const int32_t*>(dense.const_data_ptr());
  const int64_t dim = x.size(-1), batch = x.numel() / dim, size = x.element_size();
  const at::Tensor out = empty_for(x, num_rows);
  char* bytes = static_cast<char*>(out.mutable_data_ptr());

  const int64_t panels = (num_rows + kPanelRows - 1) / kPanelRows;
  // Most are multiplied whole, which packs them once, the last in parts: threads end together.
  const int64_t threads = at::get_num_threads();
  const int64_t whole = std::max<int64_t>(0, panels - panels % threads - threads);
  const int64_t parts = std::clamp<int64_t>(kTasksPerThread * threads / (panels - whole), 1,
                                            batch / kManyRows);
  parallel_for_torch(whole + (panels - whole) * parts, [&](int64_t i) {
    static thread_local std::vector<int32_t> panel;
    static thread_local std::vector<float> sums;
    const bool is_whole = i < whole;
    const int64_t part = is_whole ? 0 : (i - whole) % parts, of = is_whole ? 1 : parts;
    const int64_t row = (is_whole ? i : whole + (i - whole) / parts) * kPanelRows;
    const int64_t width = std::min<int64_t>(kPanelRows, num_rows - row);
    const int64_t first = part * batch / of, last = (part + 1) * batch / of;
    panel.resize(dim / matmul.per_lane * kPanelRows);
    fill(matmul, row, panel.data());
    sums.resize((last - first) * kPanelRows);
    matmul.multiply_panel(lanes + first * dim / matmul.per_lane, last - first, dim, panel.data(),
                          sums.data(),
                          {bytes + (first * num_rows + row) * size, num_rows * size, width, element});
  });
  return out;
}

at::Tensor multiply_many(const at::Tensor& x, const Tiles& tiles) {
  constexpr int64_t kTiles = kPanelRows / kRowTile;
  const auto fill = [&](const MatmulKernels& matmul, int64_t row, int32_t* panel) {
    const int64_t first = row / kRowTile, count = std::min(kTiles, tiles.count - first);
    if (count < kTiles) {  // the others become zero
      const int64_t lanes = tiles.num_groups * kGroup / matmul.per_lane * kPanelRows;
      std::fill(panel, panel + lanes, 0);
    }
    for (int64_t i = 0; i < count; ++i)
      matmul.unpack_tile(tiles[first + i], tiles.num_groups, panel + i * kRowTile);
  };
  return multiply_many(x, tiles.count * kRowTile, fill);
}

at::Tensor quantized_linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                            const OptionalTensor& minimums) {
  check_packed(codes, scales, minimums);
  const Tiles tiles(codes, scales, minimums);
  const int64_t dim = tiles.num_groups * kGroup, num_rows = tiles.count * kRowTile;
  check_activations(x, dim);
  if (x.numel() == 0 || num_rows == 0) return empty_for(x, num_rows);
  if (!is_float(x))
    return quantized_linear(x.to(at::kFloat), codes, scales, minimums).to(x.scalar_type());
  return x.numel() < kManyRows * dim ? multiply_few(x, tiles) : multiply_many(x, tiles);
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
                             product.numbers + first, num_rows);
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
