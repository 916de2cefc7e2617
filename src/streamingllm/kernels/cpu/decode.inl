// Attention of one token per stream over its sinks and its ring (flash decoding, Dao et al. 2023).
// Included once per instruction set, inside its namespace.

constexpr int64_t kBlock = 64;  // keys between two updates of the running softmax
constexpr int kValueTile = 4;

// out[h] += sum over k of weights[h][k] * values[k], for kHeads heads.
template <typename T, int kHeads, int kVectors>
void weigh_tile(const float* weights, const char* values, int64_t stride, int64_t count,
                int64_t dim, float* out) {
  Vector sums[kHeads][kVectors];
  for (int h = 0; h < kHeads; ++h)
    for (int i = 0; i < kVectors; ++i) sums[h][i] = load(out + h * dim + i * kWidth);
  for (int64_t k = 0; k < count; ++k) {
    const T* value = reinterpret_cast<const T*>(values + k * stride);
    for (int i = 0; i < kVectors; ++i) {
      __builtin_prefetch(reinterpret_cast<const char*>(value + i * kWidth) + kAheadBytes);
      const Vector v = load(value + i * kWidth);
      for (int h = 0; h < kHeads; ++h)
        sums[h][i] = fused(broadcast(weights[h * kBlock + k]), v, sums[h][i]);
    }
  }
  for (int h = 0; h < kHeads; ++h)
    for (int i = 0; i < kVectors; ++i) store(out + h * dim + i * kWidth, sums[h][i]);
}

template <typename T, int kHeads>
void weigh_rows(const float* weights, const char* values, int64_t stride, int64_t count,
                int64_t dim, float* out) {
  int64_t d = 0;
  for (; d + kValueTile * kWidth <= dim; d += kValueTile * kWidth)
    weigh_tile<T, kHeads, kValueTile>(weights, values + d * sizeof(T), stride, count, dim, out + d);
  for (; d < dim; d += kWidth)
    weigh_tile<T, kHeads, 1>(weights, values + d * sizeof(T), stride, count, dim, out + d);
}

// Turn scores [count] into weights, and scale the running sums down to a new maximum.
inline void softmax_block(float* scores, int64_t count, float softcap, int64_t dim, float* running,
                          float* total, float* out) {
  if (softcap != 0.0f)
    for (int64_t k = 0; k < count; k += kWidth) store(scores + k, capped(load(scores + k), softcap));
  for (int64_t k = count; k % kWidth; ++k) scores[k] = kNothing;
  Vector top = broadcast(*running);
  for (int64_t k = 0; k < count; k += kWidth) top = maximum(top, load(scores + k));
  const float highest = greatest(top);
  Vector sums = zero();
  for (int64_t k = 0; k < count; k += kWidth) {
    const Vector w = exponential(subtract(load(scores + k), broadcast(highest)));
    store(scores + k, w);
    sums = add(sums, w);
  }
  if (highest > *running) {
    const Vector shrink = exponential(broadcast(*running - highest));
    *total = sum(multiply(shrink, broadcast(*total / kWidth)));
    for (int64_t d = 0; d < dim; d += kWidth) store(out + d, multiply(load(out + d), shrink));
    *running = highest;
  }
  *total += sum(sums);
}

template <typename T, int kHeads>
void attend_heads(const HeadGroup& group, const float* q, const Rows& rows, int64_t first,
                  int64_t last, const Partial& partial) {
  alignas(64) float scores[kHeads * kBlock];
  for (int64_t start = first; start < last; start += kBlock) {
    const int64_t count = last - start < kBlock ? last - start : kBlock;
    const char* values = rows.values + start * rows.value_stride;
    dot_rows<T, kHeads>(q, group.key_dim, rows.keys + start * rows.key_stride, rows.key_stride,
                        count, scores, kBlock);
    for (int h = 0; h < kHeads; ++h) {
      float* weights = scores + h * kBlock;
      softmax_block(weights, count, group.softcap, group.value_dim, partial.maximum + h,
                    partial.total + h, partial.out + h * group.value_dim);
      if (sizeof(T) == 1)
        for (int64_t k = 0; k < count; ++k)
          weights[k] *= scale_of(reinterpret_cast<const T*>(values + k * rows.value_stride),
                                 group.value_dim);
    }
    weigh_rows<T, kHeads>(scores, values, rows.value_stride, count, group.value_dim, partial.out);
  }
}

template <typename T>
void attend_rows(const HeadGroup& group, const float* q, const Rows& rows, int64_t first,
                 int64_t last, const Partial& partial) {
  int64_t h = 0;
  const auto rest = [&](int64_t h) {
    return Partial{partial.maximum + h, partial.total + h, partial.out + h * group.value_dim};
  };
  for (; h + kHeadTile <= group.num_queries; h += kHeadTile)
    attend_heads<T, kHeadTile>(group, q + h * group.key_dim, rows, first, last, rest(h));
  if (kHeadTile > 3 && h + 3 <= group.num_queries) {
    attend_heads<T, 3>(group, q + h * group.key_dim, rows, first, last, rest(h));
    h += 3;
  }
  if (kHeadTile > 2 && h + 2 <= group.num_queries) {
    attend_heads<T, 2>(group, q + h * group.key_dim, rows, first, last, rest(h));
    h += 2;
  }
  for (; h < group.num_queries; ++h)
    attend_heads<T, 1>(group, q + h * group.key_dim, rows, first, last, rest(h));
}

inline void attend_run(const HeadGroup& group, const float* q, const Rows& rows, int64_t first,
                       int64_t last, const Partial& partial) {
  if (first >= last) return;
  switch (rows.element) {
    case Element::kFloat32: return attend_rows<float>(group, q, rows, first, last, partial);
    case Element::kBFloat16: return attend_rows<uint16_t>(group, q, rows, first, last, partial);
    case Element::kInt8: return attend_rows<int8_t>(group, q, rows, first, last, partial);
  }
}

void attend_span(const HeadGroup& group, int64_t first, int64_t last, const Partial& partial) {
  for (int64_t h = 0; h < group.num_queries; ++h) {
    partial.maximum[h] = kNothing;
    partial.total[h] = 0.0f;
  }
  __builtin_memset(partial.out, 0, sizeof(float) * group.num_queries * group.value_dim);
  const int64_t n = group.num_sinks, wrap = n + group.num_unwrapped;
  const auto run = [&](const float* q, const Rows& rows, int64_t begin, int64_t end) {
    attend_run(group, q, rows, first > begin ? first - begin : 0,
               (last < end ? last : end) - begin, partial);
  };
  run(group.q_for_sinks, group.sinks, 0, n);
  run(group.q, group.window, n, wrap);
  run(group.q, group.wrapped, wrap, last);
}
