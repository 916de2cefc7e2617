// Weights in blocks: their codes, their scales, and what they stand for.
// Included once per instruction set, inside its namespace.

constexpr int kPairs = kGroup / 2;  // of columns, in the codes of kGroup of them

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

// Lay out kWidth rows of a tile as columns of a panel.
template <typename Math, typename F>
void unpack_to_panel(const BlockTile<F>& w, int64_t num_groups, int lane, int32_t* panel) {
  unpack_pairs(w, num_groups, lane, [&](int64_t column, Vector even, Vector odd) {
    Math::put_neighbours(panel + column / Math::kPerLane * kPanelRows + lane, even, odd);
  });
}

// Lay out a tile as kRowTile columns of a panel.
template <typename Math>
void unpack_blocks(int64_t format, const char* tile, int64_t num_groups, int32_t* panel) {
  with_format(format, [&]<typename F>() {
    const BlockTile<F> w(tile, num_groups * kGroup);
    for (int lane = 0; lane < kRowTile; lane += kWidth)
      unpack_to_panel<Math>(w, num_groups, lane, panel);
  });
}

template <typename Math>
void unpack_tile(const QuantizedTile& tile, int64_t num_groups, int32_t* panel) {
  with_blocks(tile, num_groups, [&](const auto& w) {
    for (int lane = 0; lane < kRowTile; lane += kWidth)
      unpack_to_panel<Math>(w, num_groups, lane, panel);
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
