// Weights in the bits of a GGUF file, laid out in tiles of kRowTile rows.
//
// A tile has up to five regions, each of whole cache lines: the low bits of the codes, their high
// bits, the scales, the minimums, and the factors of scales and minimums. kernels/blocks.py says
// which bit is where, and what a weight is.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace streamingllm {

constexpr int kSpan = 256;  // columns that share the factors of their scales

// How the scale of a group is stored: as a half; as an exponent; as a byte times a half.
enum class Scale { kHalf, kExponent, kFactored };

// The values that codes number: their own, or those of a table.
enum class Values { kCodes, kIq4, kMxfp4 };

// Source: kvalues_iq4nl and kvalues_mxfp4 in ggml-common.h of https://github.com/ggml-org/ggml.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// One format: codes of `low` + `high` bits that count from `centre`, or that number the entries of
// a table; groups of `group` columns with a scale and, if `has_minimums`, a minimum. Factored
// minimums are subtracted.
template <int low, int high, int centre, int group, Scale scale, bool has_minimums,
          Values values = Values::kCodes>
struct Format {
  static constexpr int kLow = low, kHigh = high, kCentre = centre, kGroupColumns = group;
  static constexpr Scale kScale = scale;
  static constexpr bool kFactored = scale == Scale::kFactored, kHasMinimums = has_minimums;
  static constexpr Values kValues = values;
  static constexpr int kScaleBytes = scale == Scale::kHalf ? 2 : 1;
};

using Q4_0 = Format<4, 0, 8, 32, Scale::kHalf, false>;
using Q4_1 = Format<4, 0, 0, 32, Scale::kHalf, true>;
using Q5_0 = Format<4, 1, 16, 32, Scale::kHalf, false>;
using Q5_1 = Format<4, 1, 0, 32, Scale::kHalf, true>;
using Q8_0 = Format<8, 0, 0, 32, Scale::kHalf, false>;
using Q8_1 = Format<8, 0, 0, 32, Scale::kHalf, true>;  // of kernels/packing.py; no type of files
using Q2_K = Format<2, 0, 0, 16, Scale::kFactored, true>;
using Q3_K = Format<2, 1, 4, 16, Scale::kFactored, false>;
using Q4_K = Format<4, 0, 0, 32, Scale::kFactored, true>;
using Q5_K = Format<4, 1, 0, 32, Scale::kFactored, true>;
using Q6_K = Format<4, 2, 32, 16, Scale::kFactored, false>;
using IQ4_NL = Format<4, 0, 0, 32, Scale::kHalf, false, Values::kIq4>;
using IQ4_XS = Format<4, 0, 0, 32, Scale::kFactored, false, Values::kIq4>;
using MXFP4 = Format<4, 0, 0, 32, Scale::kExponent, false, Values::kMxfp4>;

// Call work.template operator()<Format>() for the format of a ggml type; return whether it is one.
template <typename Work>
bool with_format(int64_t ggml_type, const Work& work) {
  switch (ggml_type) {
    case 2: work.template operator()<Q4_0>(); return true;
    case 3: work.template operator()<Q4_1>(); return true;
    case 6: work.template operator()<Q5_0>(); return true;
    case 7: work.template operator()<Q5_1>(); return true;
    case 8: work.template operator()<Q8_0>(); return true;
    case 10: work.template operator()<Q2_K>(); return true;
    case 11: work.template operator()<Q3_K>(); return true;
    case 12: work.template operator()<Q4_K>(); return true;
    case 13: work.template operator()<Q5_K>(); return true;
    case 14: work.template operator()<Q6_K>(); return true;
    case 20: work.template operator()<IQ4_NL>(); return true;
    case 23: work.template operator()<IQ4_XS>(); return true;
    case 39: work.template operator()<MXFP4>(); return true;
    default: return false;
  }
}

// Where the regions of a tile begin, in bytes.
struct TileLayout {
  int64_t high, scales, minimums, factors, bytes;
};

template <typename F>
constexpr TileLayout tile_layout(int64_t num_columns) {
  const auto lines = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const int64_t groups = num_columns / F::kGroupColumns, spans = num_columns / kSpan;
  TileLayout at{};
  at.high = num_columns * kRowTile * F::kLow / 8;
  at.scales = at.high + num_columns * kRowTile * F::kHigh / 8;
  at.minimums = at.scales + lines(groups * kRowTile * F::kScaleBytes);
  at.factors = at.minimums + (F::kHasMinimums ? lines(groups * kRowTile * F::kScaleBytes) : 0);
  const int64_t factors = F::kFactored ? spans * kRowTile * 2 * (F::kHasMinimums ? 2 : 1) : 0;
  at.bytes = at.factors + lines(factors);
  return at;
}

// A tile of a packed weight, and the regions in it.
template <typename F>
struct BlockTile {
  BlockTile(const char* data, int64_t num_columns) : BlockTile(data, tile_layout<F>(num_columns)) {}
  BlockTile(const char* data, const TileLayout& at)
      : low(reinterpret_cast<const int32_t*>(data)),
        high(reinterpret_cast<const int32_t*>(data + at.high)),
        scales(data + at.scales),
        minimums(data + at.minimums),
        factors(reinterpret_cast<const uint16_t*>(data + at.factors)),
        end(data + at.bytes) {}
  BlockTile(const QuantizedTile& w, int64_t num_columns)
      : low(w.codes),
        high(nullptr),
        scales(reinterpret_cast<const char*>(w.scales)),
        minimums(reinterpret_cast<const char*>(w.minimums)),
        factors(nullptr),
        end(reinterpret_cast<const char*>(w.codes) + num_columns * kRowTile * F::kLow / 8) {}

  const int32_t* low;   // [columns / 32][kLow][kRowTile]
  const int32_t* high;  // [columns / 32][kHigh][kRowTile]
  const char* scales;   // [groups][kRowTile], halves or bytes
  const char* minimums;
  const uint16_t* factors;  // [spans][1 or 2][kRowTile]: of scales, of minimums
  const char* end;          // of the tile, where the codes of the next one begin
};

// Call work(tile) for a tile of kernels/packing.py, whose regions lie apart.
template <typename Work>
void with_blocks(const QuantizedTile& w, int64_t num_groups, const Work& work) {
  const int64_t num_columns = num_groups * kGroup;
  if (w.bits == 4)
    w.minimums ? work(BlockTile<Q4_1>(w, num_columns)) : work(BlockTile<Q4_0>(w, num_columns));
  else
    w.minimums ? work(BlockTile<Q8_1>(w, num_columns)) : work(BlockTile<Q8_0>(w, num_columns));
}

}  // namespace streamingllm
