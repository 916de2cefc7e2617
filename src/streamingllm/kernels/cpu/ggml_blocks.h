// Blocks of a GGUF file, taken apart.
//
// Source: block_* and dequantize_row_* in ggml-common.h and ggml-quants.c of
// https://github.com/ggml-org/ggml.
#pragma once
#include <cstdint>
#include <cstring>

#include "blocks.h"

namespace streamingllm {

// One block: a code for each column, and a scale (and minimum) for each group of columns.
struct Block {
  uint8_t codes[kSpan];
  uint8_t scales[kSpan / 16], minimums[kSpan / 16];  // bytes of a factored format, or an exponent
  uint16_t factor, minimum_factor;                   // halves: factors, or the scale and minimum
};

namespace ggml {

inline uint16_t half_at(const uint8_t* p) {
  uint16_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// Sixteen bytes of nibbles: the low ones come first.
inline void read_nibbles(const uint8_t* p, int count, uint8_t* codes) {
  for (int i = 0; i < count; ++i) {
    codes[i] = p[i] & 15;
    codes[i + count] = p[i] >> 4;
  }
}

// Bits of 32 columns, in order, that stand for `value`.
inline void add_bits(const uint8_t* p, uint8_t value, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] |= (p[i / 8] >> i % 8 & 1) * value;
}

// Scales and minimums of six bits: the last four groups keep their upper two above the first four.
inline void read_six_bits(const uint8_t* p, Block& block) {
  for (int i = 0; i < 4; ++i) {
    block.scales[i] = p[i] & 63;
    block.minimums[i] = p[i + 4] & 63;
    block.scales[i + 4] = (p[i + 8] & 15) | p[i] >> 6 << 4;
    block.minimums[i + 4] = p[i + 8] >> 4 | p[i + 4] >> 6 << 4;
  }
}

template <typename F>
struct Reader;

template <>
struct Reader<Q4_0> {
  static constexpr int kColumns = 32, kBytes = 18;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    read_nibbles(p + 2, 16, block.codes);
  }
};

template <>
struct Reader<IQ4_NL> : Reader<Q4_0> {};

template <>
struct Reader<Q4_1> {
  static constexpr int kColumns = 32, kBytes = 20;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_nibbles(p + 4, 16, block.codes);
  }
};

template <>
struct Reader<Q5_0> {
  static constexpr int kColumns = 32, kBytes = 22;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    read_nibbles(p + 6, 16, block.codes);
    add_bits(p + 2, 16, block.codes);
  }
};

template <>
struct Reader<Q5_1> {
  static constexpr int kColumns = 32, kBytes = 24;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_nibbles(p + 8, 16, block.codes);
    add_bits(p + 4, 16, block.codes);
  }
};

template <>
struct Reader<Q8_0> {
  static constexpr int kColumns = 32, kBytes = 34;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    std::memcpy(block.codes, p + 2, 32);
  }
};

template <>
struct Reader<MXFP4> {
  static constexpr int kColumns = 32, kBytes = 17;
  static void read(const uint8_t* p, Block& block) {
    block.scales[0] = p[0];
    read_nibbles(p + 1, 16, block.codes);
  }
};

template <>
struct Reader<Q2_K> {
  static constexpr int kColumns = kSpan, kBytes = 84;
  static void read(const uint8_t* p, Block& block) {
    for (int i = 0; i < 16; ++i) {
      block.scales[i] = p[i] & 15;
      block.minimums[i] = p[i] >> 4;
    }
    for (int i = 0; i < kSpan; ++i)
      block.codes[i] = p[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    block.factor = half_at(p + 80);
    block.minimum_factor = half_at(p + 82);
  }
};

template <>
struct Reader<Q3_K> {
  static constexpr int kColumns = kSpan, kBytes = 110;
  static void read(const uint8_t* p, Block& block) {
    const uint8_t *low = p + 32, *scales = p + 96;
    for (int i = 0; i < kSpan; ++i)
      block.codes[i] = (low[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) |
                       (p[i % 32] >> i / 32 & 1) << 2;
    for (int i = 0; i < 16; ++i) {
      const int four = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
      block.scales[i] = static_cast<uint8_t>((four | (scales[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
    }
    block.factor = half_at(p + 108);
  }
};

template <>
struct Reader<Q4_K> {
  static constexpr int kColumns = kSpan, kBytes = 144;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_six_bits(p + 4, block);
    for (int i = 0; i < 4; ++i) read_nibbles(p + 16 + i * 32, 32, block.codes + i * 64);
  }
};

template <>
struct Reader<Q5_K> {
  static constexpr int kColumns = kSpan, kBytes = 176;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_six_bits(p + 4, block);
    for (int i = 0; i < 4; ++i) read_nibbles(p + 48 + i * 32, 32, block.codes + i * 64);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 32; ++j) block.codes[i * 32 + j] |= (p[16 + j] >> i & 1) << 4;
  }
};

template <>
struct Reader<Q6_K> {
  static constexpr int kColumns = kSpan, kBytes = 210;
  static void read(const uint8_t* p, Block& block) {
    for (int half = 0; half < 2; ++half) {
      const uint8_t *low = p + half * 64, *high = p + 128 + half * 32;
      uint8_t* codes = block.codes + half * 128;
      for (int i = 0; i < 64; ++i) {
        codes[i] = (low[i] & 15) | (high[i % 32] >> i / 32 * 2 & 3) << 4;
        codes[i + 64] = low[i] >> 4 | (high[i % 32] >> (4 + i / 32 * 2) & 3) << 4;
      }
    }
    std::memcpy(block.scales, p + 192, 16);
    block.factor = half_at(p + 208);
  }
};

template <>
struct Reader<IQ4_XS> {
  static constexpr int kColumns = kSpan, kBytes = 136;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    const int high = half_at(p + 2);
    for (int i = 0; i < 8; ++i) {
      const int low = p[4 + i / 2] >> i % 2 * 4 & 15;
      block.scales[i] = static_cast<uint8_t>((low | (high >> 2 * i & 3) << 4) - 32);
      read_nibbles(p + 8 + i * 16, 16, block.codes + i * 32);
    }
  }
};

}  // namespace ggml
}  // namespace streamingllm
