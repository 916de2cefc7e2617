// The operator `pack_blocks`: from rows of a GGUF file to tiles; see kernels/reference.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "checks.h"
#include "ggml_blocks.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// The kBits bits from bit `from` on of eight codes: those of even columns in the low half.
template <int kBits>
uint32_t gather(const uint8_t* codes, int from) {
  constexpr uint64_t kMask = ((1ull << kBits) - 1) * 0x0001000100010001ull;
  uint64_t eight;
  std::memcpy(&eight, codes, sizeof eight);
  eight >>= from;
  const auto close = [](uint64_t x) {  // four fields, 16 bits apart, side by side
    x &= kMask;
    x |= x >> (16 - kBits);
    x |= x >> (32 - 2 * kBits);
    return static_cast<uint32_t>(x & ((1ull << 4 * kBits) - 1));
  };
  return close(eight) | close(eight >> 8) << 16;
}

// Spread 32 codes of a row over kBits lanes that lie kRowTile apart.
template <int kBits>
void put_bits(const uint8_t* codes, int from, int32_t* lanes) {
  constexpr int kEights = 4 / kBits;  // groups of eight codes in a lane
  for (int i = 0; i < kBits; ++i) {
    uint32_t lane = 0;
    for (int j = 0; j < kEights; ++j)
      lane |= gather<kBits>(codes + (i * kEights + j) * 8, from) << 4 * kBits * j;
    lanes[i * kRowTile] = static_cast<int32_t>(lane);
  }
}

template <typename F>
class TileWriter {
 public:
  TileWriter(char* data, int64_t num_columns) {
    const TileLayout at = tile_layout<F>(num_columns);
    std::memset(data, 0, at.bytes);
    low_ = reinterpret_cast<int32_t*>(data);
    high_ = reinterpret_cast<int32_t*>(data + at.high);
    scales_ = data + at.scales;
    minimums_ = data + at.minimums;
    factors_ = reinterpret_cast<uint16_t*>(data + at.factors);
  }

  // Write block number `i` of the row in lane `lane`.
  void write(const Block& block, int64_t i, int lane) const {
    constexpr int kColumns = ggml::Reader<F>::kColumns;
    for (int unit = 0; unit < kColumns / kGroup; ++unit) {
      const int64_t group = i * (kColumns / kGroup) + unit;
      const uint8_t* codes = block.codes + unit * kGroup;
      int32_t* low = low_ + group * F::kLow * kRowTile + lane;
      if constexpr (F::kLow == 8)
        for (int j = 0; j < 8; ++j, codes += 4)
          low[j * kRowTile] = static_cast<int32_t>(codes[0] | codes[2] << 8 | codes[1] << 16 |
                                                   static_cast<uint32_t>(codes[3]) << 24);
      else
        put_bits<F::kLow>(codes, 0, low);
      if constexpr (F::kHigh > 0)
        put_bits<F::kHigh>(codes, F::kLow, high_ + group * F::kHigh * kRowTile + lane);
    }
    constexpr int kGroups = kColumns / F::kGroupColumns;
    for (int g = 0; g < kGroups; ++g) write_scales(block, g, (i * kGroups + g) * kRowTile + lane);
    if constexpr (F::kFactored) {
      uint16_t* at = factors_ + i * kRowTile * (F::kHasMinimums ? 2 : 1) + lane;
      at[0] = block.factor;
      if (F::kHasMinimums) at[kRowTile] = block.minimum_factor;
    }
  }

 private:
  void write_scales(const Block& block, int group, int64_t at) const {
    if constexpr (F::kScale == Scale::kHalf) {
      reinterpret_cast<uint16_t*>(scales_)[at] = block.factor;
      if (F::kHasMinimums) reinterpret_cast<uint16_t*>(minimums_)[at] = block.minimum_factor;
    } else {
      scales_[at] = static_cast<char>(block.scales[group]);
      if (F::kHasMinimums) minimums_[at] = static_cast<char>(block.minimums[group]);
    }
  }

  int32_t *low_, *high_;
  char *scales_, *minimums_;
  uint16_t* factors_;
};

at::Tensor pack_blocks(const at::Tensor& rows, int64_t format, int64_t num_columns,
                       const OptionalTensor& order) {
  check_dims("rows", rows, 2, "[out_features, bytes of a row]");
  check_dtype("rows", rows, at::kByte);
  TORCH_CHECK(rows.stride(1) == 1, "rows must be contiguous along a row");
  if (order) {
    check_shape("order", *order, {rows.size(0)});
    check_dtype("order", *order, at::kLong);
  }
  const at::Tensor kept = order ? order->contiguous() : at::Tensor();
  const int64_t* numbers = order ? kept.const_data_ptr<int64_t>() : nullptr;
  const int64_t num_rows = rows.size(0), num_tiles = (num_rows + kRowTile - 1) / kRowTile;
  for (int64_t i = 0; numbers && i < num_rows; ++i)
    TORCH_CHECK_INDEX(numbers[i] >= 0 && numbers[i] < num_rows, "order holds ", numbers[i],
                      "; it must be at least 0 and less than ", num_rows);
  const auto* data = static_cast<const uint8_t*>(rows.const_data_ptr());
  at::Tensor out;
  const bool is_known = with_format(format, [&]<typename F>() {
    using Reader = ggml::Reader<F>;
    TORCH_CHECK(num_columns > 0 && num_columns % Reader::kColumns == 0, "in_features=", num_columns,
                " must be a multiple of ", Reader::kColumns);
    const int64_t num_blocks = num_columns / Reader::kColumns;
    check_shape("rows", rows, {num_rows, num_blocks * Reader::kBytes});
    const int64_t tile_bytes = tile_layout<F>(num_columns).bytes;
    out = at::empty({num_tiles, tile_bytes}, rows.options());
    char* bytes = static_cast<char*>(out.mutable_data_ptr());
    parallel_for_ranges(num_tiles, [&](int64_t first, int64_t last) {
      Block block{};
      for (int64_t tile = first; tile < last; ++tile) {
        const TileWriter<F> writer(bytes + tile * tile_bytes, num_columns);
        for (int64_t row = tile * kRowTile; row < std::min(num_rows, (tile + 1) * kRowTile); ++row) {
          const uint8_t* from = data + (numbers ? numbers[row] : row) * rows.stride(0);
          for (int64_t i = 0; i < num_blocks; ++i) {
            Reader::read(from + i * Reader::kBytes, block);
            writer.write(block, i, static_cast<int>(row % kRowTile));
          }
        }
      }
    });
  });
  TORCH_CHECK(is_known, "format=", format, " is no ggml type of kernels/blocks.py");
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) { library.impl("pack_blocks", &pack_blocks); }

}  // namespace streamingllm
