// Products of activations with packed weights, few or many rows at a time.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "thread_pool.h"

namespace streamingllm {

// Unpacking pays from this batch on: at 16 rows it was 10 % slower, at 24 it was 15 % faster.
constexpr int64_t kManyRows = 20;
constexpr int64_t kTasksPerThread = 3;
constexpr int64_t kCachedBytes = 1 << 18;  // of activations that are multiplied with many tiles

// Whether activations [..., dim] meet weights that were unpacked to their dtype.
// Products of bytes are faster for any number of float rows. Their activations have 16 bits, as in
// a decode step, so that a prompt and a step round alike.
inline bool unpacks_weights(const at::Tensor& x, int64_t dim) {
  const bool has_bytes = kernels().split_codes != nullptr && x.scalar_type() == at::kFloat;
  return x.numel() >= kManyRows * dim && !has_bytes;
}

// Activations [..., dim].
inline void check_activations(const at::Tensor& x, int64_t dim) {
  check_readable("x", x);
  TORCH_CHECK(x.is_floating_point(), "x is ", x.scalar_type(), "; it must be floating point");
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == dim, "x is ", x.sizes(), "; it must have ", dim,
              " features");
}

// An empty result for activations.
inline at::Tensor empty_for(const at::Tensor& x, int64_t num_rows) {
  auto shape = x.sizes().vec();
  shape.back() = num_rows;
  return at::empty(shape, x.options());
}

// A result [batch][num_rows] in the dtype of x, of which threads write runs of rows as floats.
class Product {
 public:
  // Rows are written in whole tiles; what the last has too many is left out. Whole tiles of floats
  // are written to the result itself.
  Product(const at::Tensor& x, int64_t batch, int64_t num_rows)
      : stride((num_rows + kRowTile - 1) / kRowTile * kRowTile), batch_(batch), rows_(num_rows) {
    out = empty_for(x, num_rows);
    element_ = element_of(out);
    bytes_ = static_cast<char*>(out.mutable_data_ptr());
    is_direct_ = element_ == Element::kFloat32 && stride == num_rows;
    if (!is_direct_) floats_.resize(batch * stride);
    numbers = is_direct_ ? reinterpret_cast<float*>(bytes_) : floats_.data();
  }

  // Round rows [first, last), which are finished.
  void round(int64_t first, int64_t last) const {
    if (is_direct_) return;
    const int64_t size = element_ == Element::kFloat32 ? 4 : 2, end = std::min(last, rows_);
    for (int64_t b = 0; b < batch_; ++b)
      kernels().from_floats(numbers + b * stride + first, end - first,
                            bytes_ + (b * rows_ + first) * size, element_);
  }

  const int64_t stride;
  at::Tensor out;
  float* numbers;  // [batch][stride]

 private:
  int64_t batch_, rows_;
  Element element_;
  char* bytes_;
  bool is_direct_;
  inline static thread_local std::vector<float> floats_;  // kept from step to step
};

// Activations [..., dim] in 16 bits, in buffers that are kept from call to call.
class QuantizedActivations {
 public:
  // `low_bits`: of the weights' codes in the first region, for products that take bytes.
  QuantizedActivations(const at::Tensor& x, int64_t dim, int low_bits)
      : batch_(x.numel() / dim), num_groups_(dim / kGroup) {
    const int64_t count = batch_ * num_groups_;
    codes_.resize(count * kGroup);
    scales_.resize(count);
    half_sums_.resize(2 * count);
    code_sums_.resize(2 * count);
    const SplitCodes split = kernels().split_codes;
    if (split != nullptr) bytes_.resize(2 * count * kGroup);
    // These buffers belong to this thread, so other threads take their addresses.
    int8_t* bytes = split == nullptr ? nullptr : bytes_.data();
    int16_t* codes = codes_.data();
    int32_t* code_sums = code_sums_.data();
    float *scales = scales_.data(), *half_sums = half_sums_.data();
    const float* numbers = as_floats(x, 1.0, floats_);
    const auto quantize = [=](int64_t first, int64_t last) {  // groups
      kernels().quantize_activations(numbers + first * kGroup, last - first,
                                     codes + first * kGroup, scales + first,
                                     half_sums + 2 * first, code_sums + 2 * first);
      if (split != nullptr)
        split(codes + first * kGroup, last - first, low_bits, bytes + 2 * first * kGroup);
    };
    if (batch_ < kManyRows)
      quantize(0, count);  // so little work is done before another thread is awake
    else
      parallel_for_ranges(count, quantize, Threads::kTorch);
    activations_ = {codes, scales, half_sums, code_sums, bytes, batch_, num_groups_};
  }

  const Activations& get() const { return activations_; }

 private:
  int64_t batch_, num_groups_;
  Activations activations_;
  inline static thread_local std::vector<float> floats_, scales_, half_sums_;
  inline static thread_local std::vector<int16_t> codes_;
  inline static thread_local std::vector<int32_t> code_sums_;
  inline static thread_local std::vector<int8_t> bytes_;
};

// At most `count` rows of activations, from row `first` on.
inline Activations rows_of(const Activations& x, int64_t first, int64_t count) {
  const int64_t group = first * x.num_groups;
  return {x.codes + group * kGroup,
          x.scales + group,
          x.half_sums + 2 * group,
          x.code_sums + 2 * group,
          x.bytes == nullptr ? nullptr : x.bytes + 2 * group * kGroup,
          std::min(count, x.batch - first),
          x.num_groups};
}

// Call multiply(i, x, out, stride) for each tile i and some rows x of the activations: it writes
// kRowTile columns of `out`. The rows of a call stay in the second-level cache for many tiles.
template <typename Multiply>
at::Tensor multiply_tiles(const at::Tensor& x, const Activations& activations, int64_t num_rows,
                          const Multiply& multiply) {
  const Product product(x, activations.batch, num_rows);
  const int64_t row_bytes = activations.num_groups * kGroup * 2;
  const int64_t rows_at_once = std::max<int64_t>(1, kCachedBytes / row_bytes / 8) * 8;
  const auto multiply_run = [&](int64_t first, int64_t last) {
    for (int64_t b = 0; b < activations.batch; b += rows_at_once) {
      const Activations rows = rows_of(activations, b, rows_at_once);
      for (int64_t i = first; i < last; ++i)
        multiply(i, rows, product.numbers + b * product.stride + i * kRowTile, product.stride);
    }
    product.round(first * kRowTile, last * kRowTile);
  };
  // Many rows are a prefill, between whose products torch's own threads work and spin.
  const Threads threads = activations.batch < kManyRows ? Threads::kOwn : Threads::kTorch;
  parallel_for_ranges(product.stride / kRowTile, multiply_run, threads);
  return product.out;
}

// The 32-bit lanes that activations are made of, contiguous and aligned.
inline at::Tensor lanes_of(const at::Tensor& x, int64_t per_lane) {
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

// The same for weights in tiles of `dim` columns: unpack(matmul, i, panel) lays out tile i.
template <typename Unpack>
at::Tensor multiply_many_tiles(const at::Tensor& x, int64_t num_rows, const Unpack& unpack) {
  constexpr int64_t kTiles = kPanelRows / kRowTile;
  const int64_t dim = x.size(-1), num_tiles = (num_rows + kRowTile - 1) / kRowTile;
  const auto fill = [&](const MatmulKernels& matmul, int64_t row, int32_t* panel) {
    const int64_t first = row / kRowTile, count = std::min(kTiles, num_tiles - first);
    if (count < kTiles)  // the others become zero
      std::fill(panel, panel + dim / matmul.per_lane * kPanelRows, 0);
    for (int64_t i = 0; i < count; ++i) unpack(matmul, first + i, panel + i * kRowTile);
  };
  return multiply_many(x, num_rows, fill);
}

}  // namespace streamingllm
