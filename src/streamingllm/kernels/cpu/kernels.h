// What one thread computes of a decode step; one implementation per instruction set.
#pragma once
#include <cstdint>

namespace streamingllm {

enum class Element { kFloat32, kBFloat16, kInt8 };

// Rows of keys and values that lie `stride` bytes apart. An int8 row ends in its float scale.
struct Rows {
  const char* keys;
  const char* values;
  int64_t key_stride;
  int64_t value_stride;
  Element element;
};

// The query heads that share one key/value head, and what they see.
struct HeadGroup {
  const float* q;            // [num_queries][key_dim], times the scale of the scores
  const float* q_for_sinks;  // likewise, standing where the sinks see them
  Rows sinks;
  Rows window;
  int64_t num_sinks;
  int64_t num_queries;
  int64_t key_dim;
  int64_t value_dim;
  float softcap;  // 0 for none
};

// A softmax that is not finished: out [num_queries][value_dim] are sums of weighted values.
struct Partial {
  float* maximum;  // [num_queries]
  float* total;    // [num_queries]
  float* out;
};

// Attend from a group to its columns [first, last), the sinks before the window.
using AttendSpan = void (*)(const HeadGroup&, int64_t first, int64_t last, const Partial&);

// Weights lie in tiles of kRowTile rows; along a row, groups of kGroup share scale and minimum.
constexpr int kRowTile = 16;
constexpr int kGroup = 32;

// One tile: weight = scale * code + minimum, where a 4-bit code without minimum counts from -8.
// Each 32-bit lane is one row: eight nibbles or four bytes, as kernels/packing.py lays them out.
struct QuantizedTile {
  const int32_t* codes;      // [num_groups][bits][kRowTile]
  const uint16_t* scales;    // IEEE half, [num_groups][kRowTile]
  const uint16_t* minimums;  // likewise; null for none
  int bits;
};

// Activations in 16 bits: value = scale * code.
struct Activations {
  const int16_t* codes;  // [batch][num_groups][kGroup]
  const float* scales;   // [batch][num_groups]
  const float* sums;     // of the values, likewise
  int64_t batch;
  int64_t num_groups;
};

// out[b][row] = x[b] . w[row] for the rows of a tile.
using MultiplyQuantized = void (*)(const QuantizedTile&, const Activations&, float* out,
                                   int64_t out_stride);
using QuantizeActivations = void (*)(const float* x, int64_t num_groups, int16_t* codes,
                                     float* scales, float* sums);
// out[b][row] = x[b] . w[row] for `count` rows of bfloat16 or float32 weights.
using MultiplyDense = void (*)(const char* w, Element element, const float* x, int64_t batch,
                               int64_t dim, int64_t count, float* out, int64_t out_stride);

// Between floats and the elements of tensors (float32 or bfloat16, rounded to nearest).
using ToFloats = void (*)(const void* x, Element element, int64_t count, float scale, float* out);
using FromFloats = void (*)(const float* x, int64_t count, void* out, Element element);

struct Kernels {
  ToFloats to_floats;
  FromFloats from_floats;
  AttendSpan attend_span;
  MultiplyQuantized multiply_quantized;
  QuantizeActivations quantize_activations;
  MultiplyDense multiply_dense;
};

namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}

}  // namespace streamingllm
