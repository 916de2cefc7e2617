// The operators `quantized_linear` and `linear` on tensors; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "shim.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// From here on unpacking pays: with 16 rows it was 10 % slower, with 24 it was 15 % faster.
constexpr int64_t kManyRows = 20;
constexpr int64_t kPiecesPerThread = 3;

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

// Products with many activations. Weights reach their dtype panel by panel: `fill` lays out kPanelRows
// of them, from a row on.
template <typename Fill>
at::Tensor multiply_many(const at::Tensor& x, int64_t num_rows, const Fill& fill) {
  const Element element = element_of(x);
  const MatmulKernels& kernels_for_dtype = matmul_kernels_for(element);
  const at::Tensor dense = (kernels_for_dtype.per_lane == 1 ? x.to(at::kFloat) : x).contiguous();
  const auto* lanes = static_cast<const int32_t*>(dense.const_data_ptr());
  const int64_t dim = x.size(-1), batch = x.numel() / dim, size = x.element_size();
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  const at::Tensor out = at::empty(shape, x.options());
  char* bytes = static_cast<char*>(out.mutable_data_ptr());

  const int64_t panels = (num_rows + kPanelRows - 1) / kPanelRows;
  // Most are multiplied whole, which packs them once, the last in parts, so that threads end together.
  const int64_t threads = at::get_num_threads();
  const int64_t whole = std::max<int64_t>(0, panels - panels % threads - threads);
  const int64_t parts = std::clamp<int64_t>(kPiecesPerThread * threads / (panels - whole), 1,
                                            batch / kManyRows);
  parallel_for_torch(whole + (panels - whole) * parts, [&](int64_t i) {
    static thread_local std::vector<int32_t> panel;
    static thread_local std::vector<float> sums;
    const bool is_whole = i < whole;
    const int64_t part = is_whole ? 0 : (i - whole) % parts, of = is_whole ? 1 : parts;
    const int64_t row = (is_whole ? i : whole + (i - whole) / parts) * kPanelRows;
    const int64_t width = std::min<int64_t>(kPanelRows, num_rows - row);
    const int64_t first = part * batch / of, last = (part + 1) * batch / of;
    panel.resize(dim / kernels_for_dtype.per_lane * kPanelRows);
    fill(kernels_for_dtype, row, panel.data());
    sums.resize((last - first) * kPanelRows);
    kernels_for_dtype.multiply_panel(lanes + first * dim / kernels_for_dtype.per_lane, last - first, dim, panel.data(),
                       sums.data(),
                       {bytes + (first * num_rows + row) * size, num_rows * size, width, element});
  });
  return out;
}

at::Tensor multiply_many(const at::Tensor& x, const Tiles& tiles) {
  constexpr int64_t kTiles = kPanelRows / kRowTile;
  return multiply_many(x, tiles.count * kRowTile, [&](const MatmulKernels& kernels_for_dtype, int64_t row, int32_t* panel) {
    const int64_t first = row / kRowTile, count = std::min(kTiles, tiles.count - first);
    if (count < kTiles) {  // the others become zero
      const int64_t lanes = tiles.num_groups * kGroup / kernels_for_dtype.per_lane * kPanelRows;
      std::fill(panel, panel + lanes, 0);
    }
    for (int64_t i = 0; i < count; ++i)
      kernels_for_dtype.unpack_tile(tiles[first + i], tiles.num_groups, panel + i * kRowTile);
  });
}

at::Tensor quantized_linear(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales,
                  const std::optional<at::Tensor>& minimums) {
  const Tiles tiles(codes, scales, minimums);
  const int64_t dim = tiles.num_groups * kGroup;
  TORCH_CHECK(x.size(-1) == dim, "x has ", x.size(-1), " features: must have ", dim);
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16)
    return quantized_linear(x.to(at::kFloat), codes, scales, minimums).to(x.scalar_type());
  return x.numel() < kManyRows * dim ? multiply_few(x, tiles) : multiply_many(x, tiles);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t num_rows = weight.size(0), dim = weight.size(1), batch = x.numel() / dim;
  if (dim % kRowTile != 0 || !weight.is_contiguous())  // rows are read in whole vectors
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  const char* rows = static_cast<const char*>(weight.const_data_ptr());
  const int64_t row_bytes = dim * weight.element_size();
  const Element element = element_of(weight);
  if (batch >= kManyRows && x.scalar_type() == weight.scalar_type())
    return multiply_many(x, num_rows, [&](const MatmulKernels& kernels_for_dtype, int64_t row, int32_t* panel) {
      kernels_for_dtype.pack_weights(rows + row * row_bytes, element, row_bytes,
                       std::min<int64_t>(kPanelRows, num_rows - row), dim, panel);
    });
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

extern "C" AOTITorchError aoti_torch_cpu_quantized_linear(AtenTensorHandle x, AtenTensorHandle codes,
                                                AtenTensorHandle scales,
                                                AtenTensorHandle* minimums,
                                                AtenTensorHandle* out) {
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
