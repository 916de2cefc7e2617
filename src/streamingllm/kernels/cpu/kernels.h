// What one thread computes; one implementation per instruction set.
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

// The query heads that share one key/value head, and their columns: sinks, then the window, which
// lies in a ring: `num_unwrapped` rows of `window`, then those of `wrapped`.
struct HeadGroup {
  const float* q;            // [num_queries][key_dim], times the scale of the scores
  const float* q_for_sinks;  // the same queries rotated where the sinks see them
  Rows sinks;
  Rows window;
  Rows wrapped;
  int64_t num_sinks;
  int64_t num_unwrapped;
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

// Attention of a chunk reads keys and values in packed blocks of kColumnBlock columns, made of
// 32-bit lanes that hold one float, or two neighbours in bfloat16 (along a key, along the columns).
constexpr int kColumnBlock = 256;
constexpr int kGreatestDim = 256;
struct PackedBlock {
  int32_t* keys;    // [key_dim / per lane][kColumnBlock]
  int32_t* values;  // [kColumnBlock / per lane][value_dim]
};

// Pack the first `count` of some rows; the others of the block become zero.
using PackBlock = void (*)(const Rows&, int64_t count, int64_t key_dim, int64_t value_dim,
                           const PackedBlock&);

// Blocks side by side, and which columns each query of a task sees: [first, last).
struct PackedColumns {
  PackedBlock blocks;
  const int64_t* first;
  const int64_t* last;
};

// Heads that share one key/value head, [num_queries][num_heads][dim]; strides in bytes.
struct QueryHeads {
  char* data;
  int64_t query_stride;
  int64_t head_stride;
};

// A run of queries of such heads, and all they see.
struct WindowedTask {
  QueryHeads q, q_for_sinks, out;
  Element element;
  PackedColumns sinks, window;
  int64_t num_queries, num_heads, key_dim, value_dim;
  float scale, softcap;      // no softcap: 0
  const float* sink_logits;  // [num_heads], or null
};

// Return the lanes of scratch memory that a task needs.
using CountScratch = int64_t (*)(const WindowedTask&);
using AttendWindows = void (*)(const WindowedTask&, int32_t* scratch);

struct QuantizedTile;

// Products with many activations read weights from a panel of kPanelRows, made of the same lanes:
// [dim / per lane][kPanelRows]. A tile fills kRowTile columns, beginning at `panel`.
constexpr int kPanelRows = 64;
using UnpackTile = void (*)(const QuantizedTile&, int64_t num_groups, int32_t* panel);
// The same for a tile in a format of blocks.h.
using UnpackBlocks = void (*)(int64_t format, const char* tile, int64_t num_groups, int32_t* panel);
// Dense rows, `stride` bytes apart, fill the first `count` columns; the others become zero.
using PackWeights = void (*)(const char* rows, Element element, int64_t stride, int64_t count,
                             int64_t dim, int32_t* panel);
// The columns of a result that a panel gives; rows lie `stride` bytes apart.
struct PanelOut {
  char* data;
  int64_t stride, width;
  Element element;
};
// out[b][row] = x[b] . w[row] for the rows of a panel; x [batch][dim] lies in lanes as well, and
// `sums` has room for [batch][kPanelRows].
using MultiplyPanel = void (*)(const int32_t* x, int64_t batch, int64_t dim, const int32_t* panel,
                               float* sums, const PanelOut& out);

// Kernels of matrix products for one type of operands: floats, or pairs of bfloat16 with sums in
// float32.
struct MatmulKernels {
  int64_t per_lane = 0;  // operands in a 32-bit lane; 0 if the instruction set has no such kernels
  PackBlock pack = nullptr;
  CountScratch count_scratch = nullptr;
  AttendWindows attend = nullptr;
  UnpackTile unpack_tile = nullptr;
  UnpackBlocks unpack_blocks = nullptr;
  PackWeights pack_weights = nullptr;
  MultiplyPanel multiply_panel = nullptr;
};

// Weights lie in tiles of kRowTile rows; along a row, groups of kGroup share scale and minimum.
constexpr int kRowTile = 16;
constexpr int kGroup = 32;

// One tile: weight = scale * code + minimum, where a 4-bit code without minimum counts from -8.
// Each 32-bit lane is one row: eight nibbles or four bytes, as kernels/packing.py lays them out.
struct QuantizedTile {
  const int32_t* codes;      // [num_groups][bits][kRowTile]
  const uint16_t* scales;    // IEEE half, [num_groups][kRowTile]
  const uint16_t* minimums;  // in the same layout; null for none
  int bits;
};

// Activations in 16 bits: value = scale * code.
struct Activations {
  const int16_t* codes;  // [batch][num_groups][kGroup]
  const float* scales;   // [batch][num_groups]
  const float* half_sums;    // of scale * code in each half of a group, [batch][num_groups][2]
  const int32_t* code_sums;  // of the codes there
  const int8_t* bytes;       // of the codes, as `SplitCodes` gives them; null for none
  int64_t batch;
  int64_t num_groups;
};

// out[b][row] = x[b] . w[row] for the rows of a tile.
using MultiplyQuantized = void (*)(const QuantizedTile&, const Activations&, float* out,
                                   int64_t out_stride);
using MultiplyBlocks = void (*)(int64_t format, const char* tile, const Activations&, float* out,
                                int64_t out_stride);
// One row of a tile as floats.
using UnpackBlockRow = void (*)(int64_t format, const char* tile, int row, int64_t num_columns,
                                float* out);
using QuantizeActivations = void (*)(const float* x, int64_t num_groups, int16_t* codes,
                                     float* scales, float* half_sums, int32_t* code_sums);
// Upper and lower bytes of codes, in the order that products with weights of `low_bits` take.
using SplitCodes = void (*)(const int16_t* codes, int64_t num_groups, int low_bits, int8_t* bytes);
// out[b][row] = x[b] . w[row] for `count` rows of bfloat16 or float32 weights.
using MultiplyDense = void (*)(const char* w, Element element, const float* x, int64_t batch,
                               int64_t dim, int64_t count, float* out, int64_t out_stride);

// Between floats and the elements of tensors (float32 or bfloat16, rounded to nearest).
using ToFloats = void (*)(const void* x, Element element, int64_t count, float scale, float* out);
using FromFloats = void (*)(const float* x, int64_t count, void* out, Element element);

// -log of the softmax of a row of logits, float32 or bfloat16, at `target`.
using NegativeLogLikelihood = float (*)(const char* row, Element element, int64_t count,
                                        int64_t target);

// Where the greatest of a row of logits is; the first of equals.
using Argmax = int64_t (*)(const char* row, Element element, int64_t count);

// A row of `dim` numbers over the root of their mean square, rounded, times `weight`.
using Normalize = void (*)(const void* x, const void* weight, Element element, int64_t dim,
                           float epsilon, void* out);
// swish(gate), rounded, times x.
using SwishGate = void (*)(const void* gate, const void* x, Element element, int64_t count,
                           void* out);

// The pairs (i, i + count) of each head of a token, turned by the same angles.
using Rotate = void (*)(const QueryHeads& x, int64_t num_heads, const void* cosines,
                        const void* sines, Element element, int64_t count, const QueryHeads& out);

struct Kernels {
  ToFloats to_floats;
  FromFloats from_floats;
  AttendSpan attend_span;
  MultiplyQuantized multiply_quantized;
  MultiplyBlocks multiply_blocks;
  UnpackBlockRow unpack_block_row;
  QuantizeActivations quantize_activations;
  SplitCodes split_codes = nullptr;  // null if products take codes as they are
  MultiplyDense multiply_dense;
  MatmulKernels by_floats, by_pairs;
  NegativeLogLikelihood negative_log_likelihood;
  Argmax argmax;
  Normalize normalize;
  SwishGate swish_gate;
  Rotate rotate;
};

namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}

}  // namespace streamingllm
