// Sixteen floats in a register, and what the kernels ask of them (AVX-512).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace streamingllm::avx512 {

constexpr int kWidth = 16;
constexpr int kHeadTile = 4;  // heads whose accumulators fit the 32 registers beside four keys

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
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
inline Vector fused(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline float sum(Vector x) { return _mm512_reduce_add_ps(x); }
inline float greatest(Vector x) { return _mm512_reduce_max_ps(x); }
inline Vector round(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^n for whole n; 0 where a float would be denormal.
inline Vector power_of_two(Vector n) {
  const __mmask16 normal = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
  const __m512i bits = _mm512_slli_epi32(
      _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_maskz_mov_ps(normal, _mm512_castsi512_ps(bits));
}

using Integers = __m512i;  // sixteen 32-bit lanes, or thirty-two of 16 bits

inline Vector load_half(const uint16_t* p) {  // IEEE half precision
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
inline Integers load_integers(const int32_t* p) { return _mm512_loadu_si512(p); }
inline Integers no_integers() { return _mm512_setzero_si512(); }
inline Integers broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}
inline Integers low_nibbles(Integers x, int shift) {
  return _mm512_and_si512(_mm512_srli_epi32(x, shift), _mm512_set1_epi32(0x000F000F));
}
inline Integers even_bytes(Integers x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
inline Integers odd_bytes(Integers x) { return _mm512_srai_epi16(x, 8); }
// sum + a[0] * b[0] + a[1] * b[1] in each lane, of signed 16-bit pairs.
inline Integers dot_pairs(Integers sum, Integers a, Integers b) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
inline Integers add(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
inline Vector to_float(Integers x) { return _mm512_cvtepi32_ps(x); }

}  // namespace streamingllm::avx512
