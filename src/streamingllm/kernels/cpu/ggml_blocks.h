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

// Nibbles of kCount bytes: the low ones come first.
template <int kCount>
void read_nibbles(const uint8_t* p, uint8_t* codes) {
  for (int i = 0; i < kCount; ++i) codes[i] = p[i] & 15;
  for (int i = 0; i < kCount; ++i) codes[i + kCount] = p[i] >> 4;
}

// Codes of 32 columns, or their upper bits from bit `to` on: kBits of each byte, from bit `from` on.
template <int kBits>
void add_fields(const uint8_t* p, int from, int to, uint8_t* codes) {
  constexpr uint8_t kMask = (1 << kBits) - 1;
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<uint8_t>(codes[i] | (p[i] >> from & kMask) << to);
}

// Bit 4 of the codes of 32 columns, eight columns to a byte.
inline void add_fifth_bits(const uint8_t* p, uint8_t* codes) {
  constexpr uint64_t kOnes = 0x0101010101010101, kEach = 0x8040201008040201;
  for (int i = 0; i < 4; ++i) {
    uint64_t eight;
    std::memcpy(&eight, codes + i * 8, sizeof eight);
    const uint64_t is_set = ((p[i] * kOnes & kEach) + kOnes * 0x7F) >> 7 & kOnes;
    eight |= is_set << 4;
    std::memcpy(codes + i * 8, &eight, sizeof eight);
  }
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
    read_nibbles<16>(p + 2, block.codes);
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
    read_nibbles<16>(p + 4, block.codes);
  }
};

template <>
struct Reader<Q5_0> {
  static constexpr int kColumns = 32, kBytes = 22;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    read_nibbles<16>(p + 6, block.codes);
    add_fifth_bits(p + 2, block.codes);
  }
};

template <>
struct Reader<Q5_1> {
  static constexpr int kColumns = 32, kBytes = 24;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_nibbles<16>(p + 8, block.codes);
    add_fifth_bits(p + 4, block.codes);
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
    read_nibbles<16>(p + 1, block.codes);
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
    std::memset(block.codes, 0, kSpan);
    for (int i = 0; i < 8; ++i)
      add_fields<2>(p + 16 + i / 4 * 32, i % 4 * 2, 0, block.codes + i * 32);
    block.factor = half_at(p + 80);
    block.minimum_factor = half_at(p + 82);
  }
};

template <>
struct Reader<Q3_K> {
  static constexpr int kColumns = kSpan, kBytes = 110;
  static void read(const uint8_t* p, Block& block) {
    const uint8_t *low = p + 32, *scales = p + 96;
    std::memset(block.codes, 0, kSpan);
    for (int i = 0; i < 8; ++i) {
      add_fields<2>(low + i / 4 * 32, i % 4 * 2, 0, block.codes + i * 32);
      add_fields<1>(p, i, 2, block.codes + i * 32);
    }
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
    for (int i = 0; i < 4; ++i) read_nibbles<32>(p + 16 + i * 32, block.codes + i * 64);
  }
};

template <>
struct Reader<Q5_K> {
  static constexpr int kColumns = kSpan, kBytes = 176;
  static void read(const uint8_t* p, Block& block) {
    block.factor = half_at(p);
    block.minimum_factor = half_at(p + 2);
    read_six_bits(p + 4, block);
    for (int i = 0; i < 4; ++i) read_nibbles<32>(p + 48 + i * 32, block.codes + i * 64);
    for (int i = 0; i < 8; ++i) add_fields<1>(p + 16, i, 4, block.codes + i * 32);
  }
};

template <>
struct Reader<Q6_K> {
  static constexpr int kColumns = kSpan, kBytes = 210;
  static void read(const uint8_t* p, Block& block) {
    for (int half = 0; half < 2; ++half) {
      uint8_t* codes = block.codes + half * 128;
      read_nibbles<64>(p + half * 64, codes);
      for (int i = 0; i < 4; ++i) add_fields<2>(p + 128 + half * 32, i * 2, 4, codes + i * 32);
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
      read_nibbles<16>(p + 8 + i * 16, block.codes + i * 32);
    }
  }
};

}  // namespace ggml
}  // namespace streamingllm
