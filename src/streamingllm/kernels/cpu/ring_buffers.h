// The buffers of a decode step: caches, undo rings and sinks of all slots.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "checks.h"
#include "dispatch.h"

namespace streamingllm {

constexpr int64_t kScaleBytes = sizeof(float);  // behind the codes of an int8 row

// A buffer [slots][heads][entries][bytes of a row].
struct Buffer {
  char* data = nullptr;
  int64_t num_entries = 0, row_bytes = 0, head_bytes = 0, slot_bytes = 0;

  Buffer() = default;
  explicit Buffer(const at::Tensor& x)
      : data(static_cast<char*>(x.mutable_data_ptr())),
        num_entries(x.size(2)),
        row_bytes(x.size(3) * x.element_size()),
        head_bytes(x.stride(1) * x.element_size()),
        slot_bytes(x.stride(0) * x.element_size()) {}
  explicit Buffer(const OptionalTensor& x) : Buffer(x ? Buffer(*x) : Buffer()) {}

  char* row(int64_t slot, int64_t head, int64_t entry) const {
    return data + slot * slot_bytes + head * head_bytes + entry * row_bytes;
  }
};

// One token of a step: its slot, its stream position, and its column of `layout`.
struct Token {
  int64_t slot, position, num_sinks, window_size, visible_sinks, window_length;
};

// The keys, or the values, of all slots.
struct Side {
  Buffer ring, undo, sinks;
  Element element, sink_element;
  bool has_own_sinks;  // beside the ring's buffer instead of in it

  Side(const at::Tensor& cache, const OptionalTensor& undo_ring, const OptionalTensor& own_sinks)
      : ring(cache),
        undo(undo_ring),
        sinks(own_sinks ? Buffer(*own_sinks) : Buffer(cache)),
        element(element_of(cache)),
        sink_element(own_sinks ? element_of(*own_sinks) : element),
        has_own_sinks(own_sinks.has_value()) {}

  int64_t first_entry(const Token& token) const { return has_own_sinks ? 0 : token.num_sinks; }
};

inline void quantize_row(const float* x, int64_t dim, char* row) {
  float greatest = 0.0f;
  bool is_finite = true;
  for (int64_t d = 0; d < dim; ++d) {
    greatest = std::max(greatest, std::fabs(x[d]));
    is_finite &= std::fabs(x[d]) <= std::numeric_limits<float>::max();
  }
  if (!is_finite) {  // codes cannot say which number it was
    std::memset(row, 0, dim);
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(row + dim, &kNan, sizeof kNan);
    return;
  }
  const float scale = greatest / 127.0f;
  const float inverse = greatest > 0.0f ? 127.0f / greatest : 0.0f;
  for (int64_t d = 0; d < dim; ++d) row[d] = static_cast<char>(std::nearbyint(x[d] * inverse));
  std::memcpy(row + dim, &scale, sizeof scale);
}

// Write the rows [heads][dim] of one token over the oldest entry of its slot's ring; the undo ring
// takes what is overwritten. Rows are floats if the ring is quantised, else elements of the ring.
inline void write_token(const char* rows, int64_t heads, int64_t dim, const Side& side,
                        const Token& token) {
  const int64_t t = token.position, m = token.window_size;
  const bool quantized = side.element == Element::kInt8;
  const int64_t row_bytes = quantized ? dim * sizeof(float) : side.ring.row_bytes;
  for (int64_t h = 0; h < heads; ++h, rows += row_bytes) {
    char* row = side.ring.row(token.slot, h, side.first_entry(token) + t % m);
    if (side.undo.num_entries > 0 && t >= m)
      std::memcpy(side.undo.row(token.slot, h, (t - m) % side.undo.num_entries), row,
                  side.ring.row_bytes);
    if (quantized)
      quantize_row(reinterpret_cast<const float*>(rows), dim, row);
    else
      std::memcpy(row, rows, row_bytes);
  }
}

}  // namespace streamingllm
