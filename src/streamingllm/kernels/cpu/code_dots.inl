// Sums of weights' codes times those of activations.
// Included once per instruction set, inside its namespace.

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

// Sums of a part of kGroup columns, for kBatch rows of activations.
template <typename F, int kBatch>
inline void dot_codes(const ByteCodes<F>& codes, int part, const Activations& x, int64_t batch,
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
    const Integers four = codes.step(s);
    for (int b = 0; b < kBatch; ++b) {
      upper[b] = dot_bytes(upper[b], four, broadcast_bytes(bytes[b] + 4 * s));
      sums[b] = dot_bytes(sums[b], four, broadcast_bytes(bytes[b] + kGroup + 4 * s));
    }
  }
  for (int b = 0; b < kBatch; ++b) sums[b] = add(sums[b], shifted_left(upper[b], 8));
}
#else
template <typename F>
using DotCodes = BlockCodes<F>;

template <typename F, int kBatch>
inline void dot_codes(const BlockCodes<F>& codes, int part, const Activations& x, int64_t batch,
                      int64_t group, Integers (&sums)[kBatch]) {
  constexpr int kParts = kGroup / F::kGroupColumns, kPartPairs = kPairs / kParts;
  constexpr bool kTwoSums = kBatch < 8;  // few enough for the registers
  Integers others[kBatch];
  const int16_t* numbers[kBatch];
  for (int b = 0; b < kBatch; ++b) {
    const int64_t i = (batch + b) * x.num_groups + group;
    numbers[b] = x.codes + i * kGroup;
    others[b] = no_integers();
    sums[b] = centre_sum<F::kCentre, kParts>(x, i, part);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPartPairs; ++i) {
    const int p = part * kPartPairs + i;
    const Integers pair = codes.pair(p);
    for (int b = 0; b < kBatch; ++b) {
      Integers& sum = kTwoSums && i % 2 ? others[b] : sums[b];
      sum = dot_pairs(sum, pair, broadcast_pair(numbers[b] + 2 * p));
    }
  }
  if constexpr (kTwoSums)
    for (int b = 0; b < kBatch; ++b) sums[b] = add(sums[b], others[b]);
}
#endif
