// Products of a few activations with weights in blocks: the cost of decoding.
// Included once per instruction set, inside its namespace.

constexpr int64_t kLine = 64;  // bytes of a cache line

// Cache lines of a tile for each group of activations, rounded up.
template <typename F>
constexpr int kLinesPerGroup = (tile_layout<F>(kSpan).bytes * kGroup / kSpan + kLine - 1) / kLine;

// What a centre takes from the sums of a part of a group.
template <int kCentre, int kParts>
inline Integers centre_sum(const Activations& x, int64_t i, int part) {
  if constexpr (kCentre == 0) return no_integers();
  const int32_t* in_halves = x.code_sums + 2 * i;
  const int32_t sum = kParts == 1 ? in_halves[0] + in_halves[1] : in_halves[part];
  return broadcast_lane(-kCentre * sum);
}

#ifdef __AVX512VNNI__
template <typename F>
using DotCodes = ByteCodes<F>;

// Sums of codes times those of activations, of a part of kGroup columns.
template <typename F, int kBatch>
inline void dot_block(const ByteCodes<F>& block, int part, const Activations& x, int64_t batch,
                      int64_t group, Integers (&sums)[kBatch]) {
  constexpr int kParts = kGroup / F::kGroupColumns, kSteps = kGroup / 4 / kParts;
  Integers upper[kBatch];
  const int8_t* bytes[kBatch];
  for (int b = 0; b < kBatch; ++b) {
    const int64_t i = (batch + b) * x.num_groups + group;
    bytes[b] = x.bytes + 2 * i * kGroup;
    upper[b] = no_integers();
    sums[b] = centre_sum<ByteCodes<F>::kCentre, kParts>(x, i, part);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSteps; ++i) {
    const int s = part * kSteps + i;
    const Integers codes = block.step(s);
    for (int b = 0; b < kBatch; ++b) {
      upper[b] = dot_bytes(upper[b], codes, broadcast_bytes(bytes[b] + 4 * s));
      sums[b] = dot_bytes(sums[b], codes, broadcast_bytes(bytes[b] + kGroup + 4 * s));
    }
  }
  for (int b = 0; b < kBatch; ++b) sums[b] = add(sums[b], shifted_left(upper[b], 8));
}
#else
template <typename F>
using DotCodes = BlockCodes<F>;

// Sums of codes times those of activations, of a part of kGroup columns.
template <typename F, int kBatch>
inline void dot_block(const BlockCodes<F>& block, int part, const Activations& x, int64_t batch,
                      int64_t group, Integers (&sums)[kBatch]) {
  constexpr int kParts = kGroup / F::kGroupColumns, kPartPairs = kPairs / kParts;
  constexpr bool kTwoSums = kBatch < 8;  // few enough for the registers
  Integers others[kBatch];
  const int16_t* codes[kBatch];
  for (int b = 0; b < kBatch; ++b) {
    const int64_t i = (batch + b) * x.num_groups + group;
    codes[b] = x.codes + i * kGroup;
    others[b] = no_integers();
    sums[b] = centre_sum<F::kCentre, kParts>(x, i, part);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPartPairs; ++i) {
    const int p = part * kPartPairs + i;
    const Integers pair = block.pair(p);
    for (int b = 0; b < kBatch; ++b) {
      Integers& sum = kTwoSums && i % 2 ? others[b] : sums[b];
      sum = dot_pairs(sum, pair, broadcast_pair(codes[b] + 2 * p));
    }
  }
  if constexpr (kTwoSums)
    for (int b = 0; b < kBatch; ++b) sums[b] = add(sums[b], others[b]);
}
#endif

// out[b][0..kWidth) for kBatch activations, of the rows that begin at lane `lane` of a tile.
template <typename F, int kBatch>
void multiply_block_lanes(const BlockTile<F>& w, const Activations& x, int64_t batch, int lane,
                          float* out, int64_t out_stride) {
  constexpr int kParts = kGroup / F::kGroupColumns;  // groups of the weights to one of activations
  Vector result[kBatch];
  for (auto& r : result) r = zero();
  BlockScales<F> scales(w, lane);
  const char* next = w.end;  // fetched while this tile is read
  for (int64_t g = 0; g < x.num_groups; ++g) {
    if (lane == 0)
      for (int i = 0; i < kLinesPerGroup<F>; ++i, next += kLine) __builtin_prefetch(next);
    const BlockCodes<F> block(w, g, lane);
    const DotCodes<F> codes(block);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Integers sums[kBatch];
      dot_block<F, kBatch>(codes, part, x, batch, g, sums);
      const Vector scale = scales.scale(g * kParts + part);
      const Vector minimum = F::kHasMinimums ? scales.minimum(g * kParts + part) : zero();
      for (int b = 0; b < kBatch; ++b) {
        const int64_t i = (batch + b) * x.num_groups + g;
        result[b] = fused(multiply(scale, broadcast(x.scales[i])), to_float(sums[b]), result[b]);
        if constexpr (F::kHasMinimums) {
          const float* in_halves = x.half_sums + 2 * i;
          const float sum = kParts == 1 ? in_halves[0] + in_halves[1] : in_halves[part];
          result[b] = fused(minimum, broadcast(sum), result[b]);
        }
      }
    }
  }
  for (int b = 0; b < kBatch; ++b) store(out + b * out_stride + lane, result[b]);
}

// The same for as many groups of kBatch activations as there are from `b` on; returns the next.
template <typename F, int kBatch>
int64_t multiply_block_batches(const BlockTile<F>& w, const Activations& x, int64_t b, int lane,
                               float* out, int64_t out_stride) {
  for (; b + kBatch <= x.batch; b += kBatch)
    multiply_block_lanes<F, kBatch>(w, x, b, lane, out + b * out_stride, out_stride);
  return b;
}

template <typename F>
void multiply_tile(const BlockTile<F>& w, const Activations& x, float* out, int64_t out_stride) {
  for (int lane = 0; lane < kRowTile; lane += kWidth) {
    int64_t b = multiply_block_batches<F, 8>(w, x, 0, lane, out, out_stride);
    b = multiply_block_batches<F, 4>(w, x, b, lane, out, out_stride);
    b = multiply_block_batches<F, 2>(w, x, b, lane, out, out_stride);
    multiply_block_batches<F, 1>(w, x, b, lane, out, out_stride);
  }
}

void multiply_blocks(int64_t format, const char* tile, const Activations& x, float* out,
                     int64_t out_stride) {
  with_format(format, [&]<typename F>() {
    multiply_tile(BlockTile<F>(tile, x.num_groups * kGroup), x, out, out_stride);
  });
}

void multiply_quantized(const QuantizedTile& tile, const Activations& x, float* out,
                        int64_t out_stride) {
  with_blocks(tile, x.num_groups, [&](const auto& w) { multiply_tile(w, x, out, out_stride); });
}
