// Products with weights in the bits of a GGUF file.
// Included once per instruction set, inside its namespace.

constexpr int kPairs = kGroup / 2;  // of columns, in the codes of kGroup of them

// The codes of kGroup columns of kWidth rows, as signed 16-bit pairs.
template <typename F>
struct BlockCodes {
  Integers low[F::kLow], high[F::kHigh + 1];

  BlockCodes(const BlockTile<F>& w, int64_t group, int lane) {
    for (int i = 0; i < F::kLow; ++i) {
      const int32_t* at = w.low + (group * F::kLow + i) * kRowTile + lane;
      __builtin_prefetch(at + kAhead);
      low[i] = load_integers(at);
    }
    for (int i = 0; i < F::kHigh; ++i) {
      const int32_t* at = w.high + (group * F::kHigh + i) * kRowTile + lane;
      __builtin_prefetch(at + kAhead / 4);
      high[i] = load_integers(at);
    }
  }

  Integers pair(int p) const {
    if constexpr (F::kLow == 8) return p % 2 ? odd_bytes(low[p / 2]) : even_bytes(low[p / 2]);
    constexpr int kLowPairs = 16 / F::kLow;  // in a lane
    Integers codes = bits_of<F::kLow>(low[p / kLowPairs], F::kLow * (p % kLowPairs), 0);
    if constexpr (F::kHigh > 0) {
      constexpr int kHighPairs = 16 / F::kHigh;
      codes = either(codes, bits_of<F::kHigh>(high[p / kHighPairs], F::kHigh * (p % kHighPairs),
                                              F::kLow));
    }
    if constexpr (F::kValues == Values::kIq4) codes = look_up(kIq4Values, codes);
    if constexpr (F::kValues == Values::kMxfp4) codes = look_up(kMxfp4Values, codes);
    return codes;
  }

 private:
  // In both halves of each lane: the kBits bits from bit `from` on, moved to bit `to`.
  template <int kBits>
  static Integers bits_of(Integers x, int from, int to) {
    const Integers moved = from >= to ? shifted_right(x, from - to) : shifted_left(x, to - from);
    return both(moved, broadcast_lane(((1 << kBits) - 1) * 0x00010001 << to));
  }
};

// Scales and minimums of the groups of kWidth rows: weight = scale * (code - centre) + minimum.
template <typename F>
class BlockScales {
 public:
  BlockScales(const BlockTile<F>& w, int lane) : w_(w), lane_(lane) {}

  Vector scale(int64_t group) {
    if constexpr (F::kFactored) begin_span(group);
    return stored(w_.scales, group, factor_);
  }
  Vector minimum(int64_t group) const { return stored(w_.minimums, group, minimum_factor_); }

 private:
  void begin_span(int64_t group) {
    constexpr int64_t kGroups = kSpan / F::kGroupColumns, kFactors = F::kHasMinimums ? 2 : 1;
    if (group % kGroups != 0) return;
    const uint16_t* at = w_.factors + group / kGroups * kFactors * kRowTile + lane_;
    factor_ = load_half(at);
    if (F::kHasMinimums) minimum_factor_ = subtract(zero(), load_half(at + kRowTile));
  }
  Vector stored(const char* region, int64_t group, Vector factor) const {
    const char* at = region + (group * kRowTile + lane_) * F::kScaleBytes;
    if constexpr (F::kScale == Scale::kHalf)
      return load_half(reinterpret_cast<const uint16_t*>(at));
    else if constexpr (F::kScale == Scale::kExponent)
      return load_exponent(reinterpret_cast<const uint8_t*>(at));
    else
      return multiply(factor, load(reinterpret_cast<const int8_t*>(at)));
  }

  const BlockTile<F>& w_;
  const int lane_;
  Vector factor_ = zero(), minimum_factor_ = zero();
};

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
    sums[b] = no_integers();
    if constexpr (F::kCentre != 0) {
      const int32_t* in_halves = x.code_sums + 2 * i;
      const int32_t sum = kParts == 1 ? in_halves[0] + in_halves[1] : in_halves[part];
      sums[b] = broadcast_lane(-F::kCentre * sum);
    }
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

// out[b][0..kWidth) for kBatch activations, of the rows that begin at lane `lane` of a tile.
template <typename F, int kBatch>
void multiply_block_lanes(const BlockTile<F>& w, const Activations& x, int64_t batch, int lane,
                          float* out, int64_t out_stride) {
  constexpr int kParts = kGroup / F::kGroupColumns;  // groups of the weights to one of activations
  Vector result[kBatch];
  for (auto& r : result) r = zero();
  BlockScales<F> scales(w, lane);
  for (int64_t g = 0; g < x.num_groups; ++g) {
    const BlockCodes<F> block(w, g, lane);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Integers sums[kBatch];
      dot_block<F, kBatch>(block, part, x, batch, g, sums);
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

template <typename F, int kBatch>
int64_t multiply_block_batches(const BlockTile<F>& w, const Activations& x, int64_t b, int lane,
                               float* out, int64_t out_stride) {
  for (; b + kBatch <= x.batch; b += kBatch)
    multiply_block_lanes<F, kBatch>(w, x, b, lane, out + b * out_stride, out_stride);
  return b;
}

void multiply_blocks(int64_t format, const char* tile, const Activations& x, float* out,
                     int64_t out_stride) {
  with_format(format, [&]<typename F>() {
    const BlockTile<F> w(tile, x.num_groups * kGroup);
    for (int lane = 0; lane < kRowTile; lane += kWidth) {
      int64_t b = multiply_block_batches<F, 8>(w, x, 0, lane, out, out_stride);
      b = multiply_block_batches<F, 4>(w, x, b, lane, out, out_stride);
      b = multiply_block_batches<F, 2>(w, x, b, lane, out, out_stride);
      multiply_block_batches<F, 1>(w, x, b, lane, out, out_stride);
    }
  });
}

// Call give(column, even, odd) for the weights of pairs of columns of kWidth rows of a tile.
template <typename F, typename Give>
void unpack_pairs(const BlockTile<F>& w, int64_t num_groups, int lane, const Give& give) {
  constexpr int kParts = kGroup / F::kGroupColumns;
  BlockScales<F> scales(w, lane);
  for (int64_t g = 0; g < num_groups; ++g) {
    const BlockCodes<F> block(w, g, lane);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const Vector scale = scales.scale(g * kParts + part);
      const Vector centre = multiply(scale, broadcast(-static_cast<float>(F::kCentre)));
      const Vector offset = F::kHasMinimums ? scales.minimum(g * kParts + part) : centre;
#pragma GCC unroll 16
      for (int i = 0; i < kPairs / kParts; ++i) {
        const int p = part * kPairs / kParts + i;
        const Integers codes = block.pair(p);
        give(g * kGroup + 2 * p, fused(to_float(low_halves(codes)), scale, offset),
             fused(to_float(high_halves(codes)), scale, offset));
      }
    }
  }
}

// Lay out a tile as kRowTile columns of a panel.
template <typename Math>
void unpack_blocks(int64_t format, const char* tile, int64_t num_groups, int32_t* panel) {
  with_format(format, [&]<typename F>() {
    const BlockTile<F> w(tile, num_groups * kGroup);
    for (int lane = 0; lane < kRowTile; lane += kWidth)
      unpack_pairs(w, num_groups, lane, [&](int64_t column, Vector even, Vector odd) {
        Math::put_neighbours(panel + column / Math::kPerLane * kPanelRows + lane, even, odd);
      });
  });
}

void unpack_block_row(int64_t format, const char* tile, int row, int64_t num_columns, float* out) {
  with_format(format, [&]<typename F>() {
    const BlockTile<F> w(tile, num_columns);
    const int lane = row / kWidth * kWidth;
    unpack_pairs(w, num_columns / kGroup, lane, [&](int64_t column, Vector even, Vector odd) {
      alignas(64) float pair[2][kWidth];
      store(pair[0], even);
      store(pair[1], odd);
      out[column] = pair[0][row - lane];
      out[column + 1] = pair[1][row - lane];
    });
  });
}
