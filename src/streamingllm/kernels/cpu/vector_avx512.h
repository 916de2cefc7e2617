// Sixteen floats in a register, and the operations of the kernels on them (AVX-512).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace streamingllm::avx512 {

constexpr int kWidth = 16;
constexpr int kHeadTile = 4;  // heads whose accumulators fit the 32 registers beside four keys
constexpr int kPanelVectors = 4;  // times kPanel sums fit them beside one row of an operand

using Vector = __m512;

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector broadcast(float x) { return _mm512_set1_ps(x); }
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline Vector load(const uint16_t* p) {  // bfloat16: the upper half of a float
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline Vector load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
inline Vector rounded(Vector x) {  // to what bfloat16 can hold, ties to even
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(0xFFFF0000)));
}
inline void store(uint16_t* p, Vector x) {
  const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(rounded(x)), 16);
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(bits));
}
inline void store_rounded(int16_t* p, Vector x) {  // to the nearest whole number, ties to even
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
}
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
inline Vector fused(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline Vector minimum(Vector a, Vector b) { return _mm512_min_ps(a, b); }
inline float sum(Vector x) { return _mm512_reduce_add_ps(x); }
inline float greatest(Vector x) { return _mm512_reduce_max_ps(x); }
inline Vector round(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vector round_down(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
// x * 2^n for whole n <= 127, however small.
inline Vector times_power_of_two(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
inline bool any_above(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }

using Integers = __m512i;  // sixteen 32-bit lanes, or thirty-two of 16 bits

inline Vector load_half(const uint16_t* p) {  // IEEE half precision
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
inline Integers load_integers(const int32_t* p) { return _mm512_loadu_si512(p); }
inline Integers broadcast_lane(int32_t x) { return _mm512_set1_epi32(x); }
inline Vector as_vector(Integers x) { return _mm512_castsi512_ps(x); }
inline Integers as_lanes(Vector x) { return _mm512_castps_si512(x); }
inline void store_lanes(int32_t* p, Integers x) { _mm512_storeu_si512(p, x); }
inline Integers no_integers() { return _mm512_setzero_si512(); }
// Turn a square of lanes round: lane i of row j and lane j of row i change places.
inline void turn(Integers (&x)[kWidth]) {
  Integers y[kWidth];
  for (int i = 0; i < kWidth; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < kWidth; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  for (int i = 0; i < kWidth; i += 8)
    for (int j = 0; j < 4; ++j) {
      y[i + j] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0x88);
      y[i + j + 4] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0xDD);
    }
  for (int j = 0; j < 8; ++j) {
    x[j] = _mm512_shuffle_i32x4(y[j], y[j + 8], 0x88);
    x[j + 8] = _mm512_shuffle_i32x4(y[j], y[j + 8], 0xDD);
  }
}
inline Integers broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}
inline Integers shifted_right(Integers x, int bits) { return _mm512_srli_epi32(x, bits); }
inline Integers shifted_left(Integers x, int bits) { return _mm512_slli_epi32(x, bits); }
inline Integers both(Integers a, Integers b) { return _mm512_and_si512(a, b); }
inline Integers either(Integers a, Integers b) { return _mm512_or_si512(a, b); }
// The entries that 16-bit numbers below 16 name.
inline Integers look_up(const int8_t* table, Integers x) {
  const __m256i entries = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)table));
  return _mm512_permutexvar_epi16(x, _mm512_broadcast_i64x4(entries));
}
// 2^(x - 128), as 4-bit floats with doubled entries need it.
inline Vector load_exponent(const uint8_t* p) {
  const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(x, _mm512_set1_epi32(1)), 23);
  const __m512i denormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), x);
  const __mmask16 is_small = _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_small, denormal));
}
inline Integers even_bytes(Integers x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
inline Integers odd_bytes(Integers x) { return _mm512_srai_epi16(x, 8); }
// The signed 16-bit halves of each lane.
inline Integers low_halves(Integers x) { return _mm512_srai_epi32(_mm512_slli_epi32(x, 16), 16); }
inline Integers high_halves(Integers x) { return _mm512_srai_epi32(x, 16); }
// sum + a[0] * b[0] + a[1] * b[1] in each lane, of signed 16-bit pairs.
inline Integers dot_pairs(Integers sum, Integers a, Integers b) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
#ifdef __AVX512VNNI__
// sum + a . b in each lane, of four unsigned bytes and four signed ones.
inline Integers dot_bytes(Integers sum, Integers a, Integers b) {
  return _mm512_dpbusd_epi32(sum, a, b);
}
// x, or the bits of y that are in a mask.
inline Integers either_of_masked(Integers x, Integers y, Integers mask) {
  return _mm512_ternarylogic_epi32(x, y, mask, 0xF8);
}
inline Integers differing(Integers a, Integers b) { return _mm512_xor_si512(a, b); }
// The entries that bytes below 16 name.
inline Integers look_up_bytes(const int8_t* table, Integers x) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), x);
}
// code = 256 * high + low for 16 codes, at most 127.5 * 256 in size.
inline void store_halves(const int16_t* codes, int8_t* high, int8_t* low) {
  const __m256i x = _mm256_loadu_si256((const __m256i*)codes);
  const __m256i top = _mm256_srai_epi16(_mm256_add_epi16(x, _mm256_set1_epi16(128)), 8);
  _mm_storeu_si128((__m128i*)high, _mm256_cvtepi16_epi8(top));
  _mm_storeu_si128((__m128i*)low, _mm256_cvtepi16_epi8(x));  // its lower eight bits
}
#endif
#ifdef __AVX512BF16__
// sum + a[0] * b[0] + a[1] * b[1] in each lane, of pairs of bfloat16.
inline Vector dot_bfloat16(Vector sum, Integers a, Integers b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
// Sixteen lanes of pairs, each an even and an odd number.
inline Integers bfloat16_pairs(Vector even, Vector odd) {
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
// Sixteen floats as eight lanes of pairs.
inline void store_bfloat16(int32_t* p, Vector x) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x));
}
#endif
inline Integers add(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
inline Vector to_float(Integers x) { return _mm512_cvtepi32_ps(x); }

}  // namespace streamingllm::avx512
