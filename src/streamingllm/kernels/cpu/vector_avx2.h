// Eight floats in a register, and the operations of the kernels on them (AVX2 and FMA).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace streamingllm::avx2 {

constexpr int kWidth = 8;
constexpr int kHeadTile = 2;  // heads whose accumulators fit the 16 registers beside four keys
constexpr int kPanelVectors = 2;  // times kPanel sums fit them beside one row of an operand

using Vector = __m256;

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector broadcast(float x) { return _mm256_set1_ps(x); }
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline Vector load(const uint16_t* p) {  // bfloat16: the upper half of a float
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Vector load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
inline void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
inline Vector rounded(Vector x) {  // to what bfloat16 can hold, ties to even
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(0xFFFF0000)));
}
inline void store(uint16_t* p, Vector x) {
  const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(rounded(x)), 16);
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(pairs));
}
inline void store_rounded(int16_t* p, Vector x) {  // to the nearest whole number, ties to even
  const __m256i whole = _mm256_cvtps_epi32(x);
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(whole, whole), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(pairs));
}
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
inline Vector fused(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector maximum(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline Vector minimum(Vector a, Vector b) { return _mm256_min_ps(a, b); }
inline float sum(Vector x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
inline float greatest(Vector x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}
inline Vector round(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vector round_down(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
// x * 2^n for whole n <= 127; 0 where 2^n would be denormal.
inline Vector times_power_of_two(Vector x, Vector n) {
  const Vector normal = _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_GE_OQ);
  const __m256i bits = _mm256_slli_epi32(
      _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(x, _mm256_and_ps(normal, _mm256_castsi256_ps(bits)));
}
inline bool any_above(Vector a, Vector b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}

using Integers = __m256i;  // eight 32-bit lanes, or sixteen of 16 bits

inline Vector load_half(const uint16_t* p) {  // IEEE half precision
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
inline Integers load_integers(const int32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Integers broadcast_lane(int32_t x) { return _mm256_set1_epi32(x); }
inline Vector as_vector(Integers x) { return _mm256_castsi256_ps(x); }
inline Integers as_lanes(Vector x) { return _mm256_castps_si256(x); }
inline void store_lanes(int32_t* p, Integers x) { _mm256_storeu_si256((__m256i*)p, x); }
inline Integers no_integers() { return _mm256_setzero_si256(); }
// Turn a square of lanes round: lane i of row j and lane j of row i change places.
inline void turn(Integers (&x)[kWidth]) {
  Integers y[kWidth];
  for (int i = 0; i < kWidth; i += 2) {
    y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < kWidth; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm256_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm256_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  for (int j = 0; j < 4; ++j) {
    y[j] = _mm256_permute2x128_si256(x[j], x[j + 4], 0x20);
    y[j + 4] = _mm256_permute2x128_si256(x[j], x[j + 4], 0x31);
  }
  for (int j = 0; j < kWidth; ++j) x[j] = y[j];
}
inline Integers broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm256_set1_epi32(pair);
}
inline Integers shifted_right(Integers x, int bits) { return _mm256_srli_epi32(x, bits); }
inline Integers shifted_left(Integers x, int bits) { return _mm256_slli_epi32(x, bits); }
inline Integers both(Integers a, Integers b) { return _mm256_and_si256(a, b); }
inline Integers either(Integers a, Integers b) { return _mm256_or_si256(a, b); }
// The entries that 16-bit numbers below 16 name.
inline Integers look_up(const int8_t* table, Integers x) {
  const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  const __m256i bytes = _mm256_shuffle_epi8(entries, x);
  return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
}
// 2^(x - 128), as 4-bit floats with doubled entries need it.
inline Vector load_exponent(const uint8_t* p) {
  const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(x, _mm256_set1_epi32(1)), 23);
  const __m256i denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), x);
  const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), x);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, denormal, is_small));
}
inline Integers even_bytes(Integers x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
inline Integers odd_bytes(Integers x) { return _mm256_srai_epi16(x, 8); }
// The signed 16-bit halves of each lane.
inline Integers low_halves(Integers x) { return _mm256_srai_epi32(_mm256_slli_epi32(x, 16), 16); }
inline Integers high_halves(Integers x) { return _mm256_srai_epi32(x, 16); }
// sum + a[0] * b[0] + a[1] * b[1] in each lane, of signed 16-bit pairs.
inline Integers dot_pairs(Integers sum, Integers a, Integers b) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
inline Integers add(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
inline Vector to_float(Integers x) { return _mm256_cvtepi32_ps(x); }

}  // namespace streamingllm::avx2
