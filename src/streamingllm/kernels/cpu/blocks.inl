// Products with weights in the bits of a GGUF file.
// Included once per instruction set, inside its namespace.

constexpr int kPairs = kGroup / 2;  // of columns, in the codes of kGroup of them

constexpr int64_t kLine = 64;  // bytes of a cache line

// Cache lines of a tile for each group of activations, rounded up.
template <typename F>
constexpr int kLinesPerGroup = (tile_layout<F>(kSpan).bytes * kGroup / kSpan + kLine - 1) / kLine;

// The codes of kGroup columns of kWidth rows, as signed 16-bit pairs.
template <typename F>
struct BlockCodes {
  Integers low[F::kLow], high[F::kHigh + 1];

  BlockCodes(const BlockTile<F>& w, int64_t group, int lane) {
    for (int i = 0; i < F::kLow; ++i) {
      low[i] = load_integers(w.low + (group * F::kLow + i) * kRowTile + lane);
    }
    for (int i = 0; i < F::kHigh; ++i) {
      high[i] = load_integers(w.high + (group * F::kHigh + i) * kRowTile + lane);
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

// What a centre takes from the sums of a part of a group.
template <int kCentre, int kParts>
inline Integers centre_sum(const Activations& x, int64_t i, int part) {
  if constexpr (kCentre == 0) return no_integers();
  const int32_t* in_halves = x.code_sums + 2 * i;
  const int32_t sum = kParts == 1 ? in_halves[0] + in_halves[1] : in_halves[part];
  return broadcast_lane(-kCentre * sum);
}

#ifdef __AVX512VNNI__
// The codes of kGroup columns of kWidth rows, four unsigned bytes of a lane at a time: a step.
// Each byte of a lane holds the codes of 8 / kLow steps. The bytes of a step are, in their order,
// columns 2k, 2k + n, 2k + 1 and 2k + n + 1 of the 2n of a lane, n = 16 / kLow; k counts steps.
template <typename F>
class ByteCodes {
 public:
  // Signed codes and entries of tables are moved to 0..255.
  static constexpr bool kIsMoved = F::kLow == 8 || F::kValues != Values::kCodes;
  static constexpr int kCentre = kIsMoved ? 128 : F::kCentre;

  explicit ByteCodes(const BlockCodes<F>& block) : low_(block.low) {
    for (int i = 0; i < F::kHigh; ++i) high_[i] = by_steps(block.high[i]);
  }

  Integers step(int s) const {
    constexpr int kSteps = 8 / F::kLow;  // in a lane
    if constexpr (F::kLow == 8) return differing(low_[s], broadcast_lane(kTop));
    const Integers moved = shifted_right(low_[s / kSteps], F::kLow * (s % kSteps));
    Integers codes = both(moved, ones<F::kLow>(0));
    if constexpr (F::kHigh > 0) {
      constexpr int kHighSteps = 8 / F::kHigh;
      const int from = F::kHigh * (s % kHighSteps);
      const Integers x = high_[s / kHighSteps];
      codes = either_of_masked(
          codes, from >= F::kLow ? shifted_right(x, from - F::kLow) : shifted_left(x, F::kLow - from),
          ones<F::kHigh>(F::kLow));
    }
    if constexpr (F::kValues == Values::kIq4) codes = entries(kIq4Values, codes);
    if constexpr (F::kValues == Values::kMxfp4) codes = entries(kMxfp4Values, codes);
    return codes;
  }

 private:
  static constexpr int32_t kTop = static_cast<int32_t>(0x80808080);

  // kBits ones in each byte, from bit `from` on.
  template <int kBits>
  static Integers ones(int from) {
    return broadcast_lane(static_cast<int32_t>((((1u << kBits) - 1) << from) * 0x01010101u));
  }
  static Integers entries(const int8_t* table, Integers codes) {
    return differing(look_up_bytes(table, codes), broadcast_lane(kTop));
  }
  // High bits lie in the order of pairs; move those of each step to its four bytes.
  static Integers by_steps(Integers x) {
    if constexpr (F::kLow == 4 && F::kHigh == 1) x = exchanged<2>(x, 0x0C0C0C0C);
    return exchanged<4>(x, 0x00F000F0);
  }
  // The bits of a mask and those `distance` above them change places.
  template <int kDistance>
  static Integers exchanged(Integers x, int32_t mask) {
    const Integers differ =
        both(differing(x, shifted_right(x, kDistance)), broadcast_lane(mask));
    return differing(x, differing(differ, shifted_left(differ, kDistance)));
  }

  const Integers (&low_)[F::kLow];
  Integers high_[F::kHigh + 1];
};

// Codes as bytes, in the order in which ByteCodes takes those of weights with `low_bits`:
// [num_groups][2][kGroup], the upper bytes of a group before the lower ones.
void split_codes(const int16_t* codes, int64_t num_groups, int low_bits, int8_t* bytes) {
  const int n = 16 / low_bits, in_lane = 2 * n;
  int8_t place[kGroup];
  for (int s = 0; s < kGroup / 4; ++s) {
    const int column = 4 * s / in_lane * in_lane + 2 * (s % (n / 2));
    const int columns[4] = {column, column + n, column + 1, column + n + 1};
    for (int i = 0; i < 4; ++i) place[4 * s + i] = static_cast<int8_t>(columns[i]);
  }
  for (int64_t g = 0; g < num_groups; ++g, codes += kGroup, bytes += 2 * kGroup) {
    int8_t halves[2][kGroup];
    for (int i = 0; i < kGroup; i += 16)
      store_halves(codes + i, halves[0] + i, halves[1] + i);
    for (int i = 0; i < kGroup; ++i) {
      bytes[i] = halves[0][place[i]];
      bytes[kGroup + i] = halves[1][place[i]];
    }
  }
}

inline Integers broadcast_bytes(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return broadcast_lane(bytes);
}

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
// GCC 12 takes this for a function without effects for one format, and drops its calls: noipa.
template <typename F, typename Give>
[[gnu::noipa]] void unpack_pairs(const BlockTile<F>& w, int64_t num_groups, int lane,
                                 const Give& give) {
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
