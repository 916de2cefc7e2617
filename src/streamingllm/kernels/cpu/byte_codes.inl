// Codes of weights and activations as bytes, for products of four bytes at once.
// Included once per instruction set that has them, inside its namespace.

// The codes of kGroup columns of kWidth rows, four unsigned bytes of a lane at a time: a step.
// Each byte of a lane holds the codes of 8 / kLow steps. The bytes of a step are, in their order,
// columns 2k, 2k + n, 2k + 1 and 2k + n + 1 of the 2n of a lane, n = 16 / kLow; k counts steps.
template <typename F>
class ByteCodes {
 public:
  // Signed codes and entries of tables are moved to 0..255.
  static constexpr bool kIsMoved = F::kLow == 8 || F::kValues != Values::kCodes;
  static constexpr int kCentre = kIsMoved ? 128 : F::kCentre;

  ByteCodes(const BlockTile<F>& w, int64_t group, int lane) : block_(w, group, lane) {
    for (int i = 0; i < F::kHigh; ++i) block_.high[i] = by_steps(block_.high[i]);
  }

  Integers step(int s) const {
    constexpr int kSteps = 8 / F::kLow;  // in a lane
    if constexpr (F::kLow == 8) return differing(block_.low[s], broadcast_lane(kTop));
    const Integers moved = shifted_right(block_.low[s / kSteps], F::kLow * (s % kSteps));
    Integers codes = both(moved, ones<F::kLow>(0));
    if constexpr (F::kHigh > 0) {
      constexpr int kHighSteps = 8 / F::kHigh;
      const int from = F::kHigh * (s % kHighSteps);
      const Integers x = block_.high[s / kHighSteps];
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

  BlockCodes<F> block_;
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
