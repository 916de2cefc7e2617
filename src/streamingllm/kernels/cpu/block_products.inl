// Products of activations with weights in blocks, eight rows of activations at a time.
// Included once per instruction set, inside its namespace.

constexpr int64_t kLine = 64;            // bytes of a cache line
constexpr int64_t kAheadOfTile = 65536;  // bytes fetched before they are needed, or a whole tile

// Fetch what comes after a tile into the second-level cache, a group's share at a time. Scales lie
// at the end of a tile, so they are fetched in time only if the distance is at least a tile.
class Prefetcher {
 public:
  template <typename F>
  Prefetcher(const BlockTile<F>& w, int64_t num_groups) {
    const char* begin = reinterpret_cast<const char*>(w.low);
    const int64_t bytes = w.end - begin;
    next_ = until_ = begin + (bytes > kAheadOfTile ? bytes : kAheadOfTile);
    share_ = (bytes + num_groups - 1) / num_groups;
  }

  void fetch_share() {
    for (until_ += share_; next_ < until_; next_ += kLine) __builtin_prefetch(next_, 0, 2);
  }

 private:
  const char *next_, *until_;
  int64_t share_;
};

// out[b][0..kWidth) for kBatch activations, of the rows that begin at lane `lane` of a tile.
template <typename F, int kBatch>
void multiply_block_lanes(const BlockTile<F>& w, const Activations& x, int64_t batch, int lane,
                          float* out, int64_t out_stride) {
  constexpr int kParts = kGroup / F::kGroupColumns;  // groups of the weights to one of activations
  Vector result[kBatch];
  for (auto& r : result) r = zero();
  BlockScales<F> scales(w, lane);
  Prefetcher prefetcher(w, x.num_groups);
  const bool is_first_pass = batch == 0 && lane == 0;
  for (int64_t g = 0; g < x.num_groups; ++g) {
    if (is_first_pass) prefetcher.fetch_share();
    const DotCodes<F> codes(w, g, lane);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Integers sums[kBatch];
      dot_codes<F, kBatch>(codes, part, x, batch, g, sums);
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

// The same for as many groups of kBatch activations as there are from `b` on, then for fewer.
template <typename F, int kBatch = 8>
void multiply_block_batches(const BlockTile<F>& w, const Activations& x, int64_t b, int lane,
                            float* out, int64_t out_stride) {
  for (; b + kBatch <= x.batch; b += kBatch)
    multiply_block_lanes<F, kBatch>(w, x, b, lane, out + b * out_stride, out_stride);
  if constexpr (kBatch > 1)
    multiply_block_batches<F, kBatch / 2>(w, x, b, lane, out, out_stride);
}

template <typename F>
void multiply_tile(const BlockTile<F>& w, const Activations& x, float* out, int64_t out_stride) {
  for (int lane = 0; lane < kRowTile; lane += kWidth)
    multiply_block_batches(w, x, 0, lane, out, out_stride);
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
