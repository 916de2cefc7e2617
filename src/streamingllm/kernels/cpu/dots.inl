// Dot products of a few float rows with many rows of any element.
// Included once per instruction set, inside its namespace.

constexpr int kKeyTile = 4;
constexpr int64_t kAheadBytes = 8192;  // fetched before they are needed

template <typename T>
float scale_of(const T*, int64_t) {
  return 1.0f;
}
inline float scale_of(const int8_t* row, int64_t dim) {
  float scale;
  __builtin_memcpy(&scale, row + dim, sizeof scale);
  return scale;
}

// scores[h][k] = q[h] . keys[k] for kHeads queries [dim] and kKeys rows.
template <typename T, int kHeads, int kKeys>
void dot_tile(const float* q, int64_t dim, const char* keys, int64_t stride, float* scores,
              int64_t scores_stride) {
  Vector sums[kHeads][kKeys];
  for (auto& row : sums)
    for (auto& s : row) s = zero();
  for (int64_t d = 0; d < dim; d += kWidth) {
    for (int k = 0; k < kKeys; ++k) {
      __builtin_prefetch(keys + k * stride + d * sizeof(T) + kAheadBytes);
      const Vector key = load(reinterpret_cast<const T*>(keys + k * stride) + d);
      for (int h = 0; h < kHeads; ++h) sums[h][k] = fused(load(q + h * dim + d), key, sums[h][k]);
    }
  }
  for (int k = 0; k < kKeys; ++k) {
    const float scale = scale_of(reinterpret_cast<const T*>(keys + k * stride), dim);
    for (int h = 0; h < kHeads; ++h) scores[h * scores_stride + k] = sum(sums[h][k]) * scale;
  }
}

template <typename T, int kHeads>
void dot_rows(const float* q, int64_t dim, const char* keys, int64_t stride, int64_t count,
              float* scores, int64_t scores_stride) {
  int64_t k = 0;
  for (; k + kKeyTile <= count; k += kKeyTile)
    dot_tile<T, kHeads, kKeyTile>(q, dim, keys + k * stride, stride, scores + k, scores_stride);
  for (; k < count; ++k)
    dot_tile<T, kHeads, 1>(q, dim, keys + k * stride, stride, scores + k, scores_stride);
}
