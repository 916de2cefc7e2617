// The operator `pack_blocks`: from rows of a GGUF file to tiles; see kernels/reference.py.
#include <ATen/core/Tensor.h>
#include <immintrin.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "checks.h"
#include "ggml_blocks.h"
#include "huge_pages.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// The bytes of each half: those of even places first.
inline __m256i evens_first(__m256i x) {
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order));
}

// The lanes of 32 codes of kBits bits, in the first 4 * kBits bytes.
template <int kBits>
inline __m256i lanes_of(__m256i codes);

template <>
inline __m256i lanes_of<8>(__m256i codes) {
  const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  return _mm256_shuffle_epi8(codes, _mm256_broadcastsi128_si256(order));
}

template <>
inline __m256i lanes_of<4>(__m256i codes) {
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const __m256i sorted = _mm256_shuffle_epi8(codes, _mm256_broadcastsi128_si256(order));
  const __m256i pairs = _mm256_maddubs_epi16(sorted, _mm256_set1_epi16(0x1001));
  const __m256i bytes = _mm256_packus_epi16(pairs, pairs);
  return _mm256_permute4x64_epi64(bytes, 0b1000);
}

template <>
inline __m256i lanes_of<2>(__m256i codes) {
  const __m256i pairs = _mm256_maddubs_epi16(evens_first(codes), _mm256_set1_epi16(0x0401));
  const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
  const __m256i halves = _mm256_packus_epi32(fours, fours);
  const __m256i bytes = _mm256_packus_epi16(halves, halves);
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 0, 0, 0, 0, 0, 0));
}

template <>
inline __m256i lanes_of<1>(__m256i codes) {
  const __m256i sorted = _mm256_permute4x64_epi64(evens_first(codes), 0b11011000);
  return _mm256_set1_epi32(_mm256_movemask_epi8(_mm256_slli_epi16(sorted, 7)));
}

// Spread the kBits bits from bit `from` on of 32 codes of a row over lanes that lie kRowTile apart.
template <int kBits>
inline void put_bits(const uint8_t* codes, int from, int32_t* lanes) {
  __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  if constexpr (kBits < 8) {
    constexpr int8_t kMask = (1 << kBits) - 1;
    x = _mm256_and_si256(_mm256_srli_epi16(x, from), _mm256_set1_epi8(kMask));
  }
  alignas(32) int32_t spread[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(spread), lanes_of<kBits>(x));
  for (int i = 0; i < kBits; ++i) lanes[i * kRowTile] = spread[i];
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
      put_bits<F::kLow>(codes, 0, low_ + group * F::kLow * kRowTile + lane);
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
    out = empty_in_huge_pages({num_tiles, tile_bytes});
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
