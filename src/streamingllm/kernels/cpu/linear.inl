// Products of a few activations with weights that are read once: the cost of decoding.
// Included once per instruction set, inside its namespace.

constexpr float kGreatestCode = 127.0f * 256.0f + 127.0f;  // its upper byte is signed

// Sixteen-bit codes of x [num_groups * kGroup] with one scale for each group.
void quantize_activations(const float* x, int64_t num_groups, int16_t* codes, float* scales,
                          float* half_sums, int32_t* code_sums) {
  for (int64_t g = 0; g < num_groups; ++g, x += kGroup, codes += kGroup) {
    Vector top = zero(), total = zero();
    for (int i = 0; i < kGroup; i += kWidth) {
      const Vector v = load(x + i);
      top = maximum(top, maximum(v, subtract(zero(), v)));
      total = add(total, v);
    }
    const float greatest_size = greatest(top);
    const float whole = sum(total);
    // A maximum may pass over NaN; a sum does not, and infinity minus itself is NaN too.
    scales[g] = greatest_size / kGreatestCode + (whole - whole);
    const float inverse = greatest_size == 0.0f ? 0.0f : kGreatestCode / greatest_size;
    for (int i = 0; i < kGroup; i += kWidth)
      store_rounded(codes + i, multiply(load(x + i), broadcast(inverse)));
    for (int half = 0; half < 2; ++half) {
      int32_t total_code = 0;
      for (int i = 0; i < kGroup / 2; ++i) total_code += codes[half * kGroup / 2 + i];
      code_sums[2 * g + half] = total_code;
      half_sums[2 * g + half] = scales[g] * static_cast<float>(total_code);
    }
  }
}

// x . w, for rows that are read once: one row after the other is a single stream of memory, which
// is read a quarter faster than four streams.
template <typename T>
float dot_row(const T* w, const float* x, int64_t dim) {
  constexpr int kSums = 4;
  constexpr int64_t kStep = kSums * kWidth, kLine = 64 / sizeof(T);
  Vector sums[kSums];
  for (auto& s : sums) s = zero();
  int64_t d = 0;
  for (; d + kStep <= dim; d += kStep) {
    for (int64_t i = 0; i < kStep; i += kLine)
      __builtin_prefetch(reinterpret_cast<const char*>(w + d + i) + kAheadBytes);
    for (int i = 0; i < kSums; ++i)
      sums[i] = fused(load(x + d + i * kWidth), load(w + d + i * kWidth), sums[i]);
  }
  for (; d < dim; d += kWidth) sums[0] = fused(load(x + d), load(w + d), sums[0]);
  return sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

template <typename T>
void multiply_rows(const char* w, const float* x, int64_t batch, int64_t dim, int64_t count,
                   float* out, int64_t out_stride) {
  const int64_t stride = dim * sizeof(T);
  int64_t b = 0;
  for (; b + kHeadTile <= batch; b += kHeadTile)
    dot_rows<T, kHeadTile>(x + b * dim, dim, w, stride, count, out + b * out_stride, out_stride);
  for (; b < batch; ++b)
    for (int64_t row = 0; row < count; ++row)
      out[b * out_stride + row] =
          dot_row(reinterpret_cast<const T*>(w + row * stride), x + b * dim, dim);
}

void multiply_dense(const char* w, Element element, const float* x, int64_t batch, int64_t dim,
                    int64_t count, float* out, int64_t out_stride) {
  if (element == Element::kFloat32)
    multiply_rows<float>(w, x, batch, dim, count, out, out_stride);
  else
    multiply_rows<uint16_t>(w, x, batch, dim, count, out, out_stride);
}
