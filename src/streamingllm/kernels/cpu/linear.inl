// Products of a few activations with weights that are read once: the cost of decoding.
// Included once per instruction set, inside its namespace.

constexpr int64_t kAhead = 2048;  // lanes between a prefetch and its use

// One group of kGroup weights of kWidth rows, as signed 16-bit pairs times those of activations.
template <int kBits, int kBatch, int kSums>
inline void dot_group(const int32_t* codes, const int16_t* const* x, int64_t first,
                      Integers (&sums)[kBatch][kSums]) {
  constexpr int kPerLane = 32 / kBits;
  for (int j = 0; j < kGroup / kPerLane; ++j) {
    __builtin_prefetch(codes + j * kRowTile + kAhead);
    const Integers packed = load_integers(codes + j * kRowTile);
    Integers pairs[kPerLane / 2];
    if constexpr (kBits == 4) {
      for (int p = 0; p < 4; ++p) pairs[p] = low_nibbles(packed, 4 * p);
    } else {
      pairs[0] = even_bytes(packed);
      pairs[1] = odd_bytes(packed);
    }
    for (int p = 0; p < kPerLane / 2; ++p)
      for (int b = 0; b < kBatch; ++b)
        sums[b][p % kSums] = dot_pairs(sums[b][p % kSums], pairs[p],
                                       broadcast_pair(x[b] + first + j * kPerLane + 2 * p));
  }
}

// out[b][0..kWidth) for kBatch activations, of the rows that begin at lane `lane` of a tile.
template <int kBits, int kBatch>
void multiply_lanes(const QuantizedTile& w, const Activations& x, int64_t batch, int lane,
                    float* out, int64_t out_stride) {
  constexpr int kSums = kBatch < 8 ? 2 : 1;  // few enough for the registers
  const int16_t* codes[kBatch];
  Vector result[kBatch];
  for (int b = 0; b < kBatch; ++b) {
    codes[b] = x.codes + (batch + b) * x.num_groups * kGroup;
    result[b] = zero();
  }
  const uint16_t* fetched = w.minimums ? w.minimums : w.scales;
  for (int64_t g = 0; g < x.num_groups; ++g) {
    Integers sums[kBatch][kSums];
    for (auto& s : sums)
      for (auto& part : s) part = no_integers();
    dot_group<kBits, kBatch, kSums>(w.codes + g * kRowTile * kBits + lane, codes, g * kGroup, sums);
    __builtin_prefetch(w.scales + g * kRowTile + lane + kAhead / 4);
    __builtin_prefetch(fetched + g * kRowTile + lane + kAhead / 4);
    const Vector scale = load_half(w.scales + g * kRowTile + lane);
    const Vector offset = w.minimums ? load_half(w.minimums + g * kRowTile + lane)
                          : kBits == 4 ? multiply(scale, broadcast(-8.0f))
                                       : zero();
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = (batch + b) * x.num_groups + g;
      const Integers whole = kSums == 1 ? sums[b][0] : add(sums[b][0], sums[b][kSums - 1]);
      const Vector sum = multiply(to_float(whole), broadcast(x.scales[i]));
      result[b] = fused(scale, sum, result[b]);
      if (kBits == 4 || w.minimums) result[b] = fused(offset, broadcast(x.sums[i]), result[b]);
    }
  }
  for (int b = 0; b < kBatch; ++b) store(out + b * out_stride + lane, result[b]);
}

template <int kBits>
void multiply_tile(const QuantizedTile& w, const Activations& x, float* out, int64_t out_stride) {
  for (int lane = 0; lane < kRowTile; lane += kWidth) {
    int64_t b = 0;
    for (; b + 8 <= x.batch; b += 8)
      multiply_lanes<kBits, 8>(w, x, b, lane, out + b * out_stride, out_stride);
    for (; b + 4 <= x.batch; b += 4)
      multiply_lanes<kBits, 4>(w, x, b, lane, out + b * out_stride, out_stride);
    for (; b + 2 <= x.batch; b += 2)
      multiply_lanes<kBits, 2>(w, x, b, lane, out + b * out_stride, out_stride);
    for (; b < x.batch; ++b)
      multiply_lanes<kBits, 1>(w, x, b, lane, out + b * out_stride, out_stride);
  }
}

void multiply_quantized(const QuantizedTile& w, const Activations& x, float* out,
                        int64_t out_stride) {
  if (w.bits == 4)
    multiply_tile<4>(w, x, out, out_stride);
  else
    multiply_tile<8>(w, x, out, out_stride);
}

constexpr float kGreatestCode = 127.0f * 256.0f + 127.0f;  // its upper byte is signed

// Sixteen-bit codes of x [num_groups * kGroup] with one scale for each group.
void quantize_activations(const float* x, int64_t num_groups, int16_t* codes, float* scales,
                          float* sums, float* half_sums, int32_t* code_sums) {
  for (int64_t g = 0; g < num_groups; ++g, x += kGroup, codes += kGroup) {
    Vector top = zero(), total = zero();
    for (int i = 0; i < kGroup; i += kWidth) {
      const Vector v = load(x + i);
      top = maximum(top, maximum(v, subtract(zero(), v)));
      total = add(total, v);
    }
    const float greatest_size = greatest(top);
    sums[g] = sum(total);
    // A maximum may pass over NaN; a sum does not, and infinity minus itself is NaN too.
    scales[g] = greatest_size / kGreatestCode + (sums[g] - sums[g]);
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
