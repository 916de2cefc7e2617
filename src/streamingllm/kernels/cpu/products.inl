// Products of matrices whose numbers lie in 32-bit lanes.
// Included once per instruction set, inside its namespace.

constexpr int kPanel = 6;  // rows of a product whose sums stay in registers, kPanelVectors wide

// How numbers lie in the 32-bit lanes of a product's operands.
struct Floats {
  static constexpr int kPerLane = 1;
  static Vector accumulate(Vector sum, Integers a, Integers b) {
    return fused(as_vector(a), as_vector(b), sum);
  }
  static void put(int32_t* lanes, int64_t i, Vector x) { store_lanes(lanes + i, as_lanes(x)); }
  // Two neighbours of each of kWidth rows of a panel.
  static void put_neighbours(int32_t* panel, Vector even, Vector odd) {
    store_lanes(panel, as_lanes(even));
    store_lanes(panel + kPanelRows, as_lanes(odd));
  }
};

#ifdef __AVX512BF16__
struct Pairs {  // two neighbours in bfloat16
  static constexpr int kPerLane = 2;
  static Vector accumulate(Vector sum, Integers a, Integers b) { return dot_bfloat16(sum, a, b); }
  static void put(int32_t* lanes, int64_t i, Vector x) { store_bfloat16(lanes + i / 2, x); }
  static void put_neighbours(int32_t* panel, Vector even, Vector odd) {
    store_lanes(panel, bfloat16_pairs(even, odd));
  }
};
#endif

// A matrix of lanes, or of floats, whose rows lie `stride` apart.
template <typename T>
struct Matrix {
  T* data;
  int64_t stride;

  T* row(int64_t i) const { return data + i * stride; }
};
using Lanes = Matrix<const int32_t>;

// c[kPanel][kVectors * kWidth] = a[kPanel][depth] b[depth][..], added to c if kAdd.
template <typename Math, int kVectors, bool kAdd>
inline void multiply_tile(const Lanes& a, const Lanes& b, int64_t depth, const Matrix<float>& c) {
  Vector sums[kPanel][kVectors];
  for (int r = 0; r < kPanel; ++r)
    for (int i = 0; i < kVectors; ++i) sums[r][i] = kAdd ? load(c.row(r) + i * kWidth) : zero();
  for (int64_t d = 0; d < depth; ++d) {
    Integers row[kVectors];
    for (int i = 0; i < kVectors; ++i) row[i] = load_integers(b.row(d) + i * kWidth);
    for (int r = 0; r < kPanel; ++r) {
      const Integers lane = broadcast_lane(a.row(r)[d]);
      for (int i = 0; i < kVectors; ++i) sums[r][i] = Math::accumulate(sums[r][i], lane, row[i]);
    }
  }
  for (int r = 0; r < kPanel; ++r)
    for (int i = 0; i < kVectors; ++i) store(c.row(r) + i * kWidth, sums[r][i]);
}

// The same for `width` columns, a multiple of kWidth; tiles are kVectors wide, the last narrower.
template <typename Math, bool kAdd, int kVectors = kPanelVectors>
void multiply_panel(const Lanes& a, const Lanes& b, int64_t depth, int64_t width,
                    const Matrix<float>& c) {
  int64_t i = 0;
  for (; i + kVectors * kWidth <= width; i += kVectors * kWidth)
    multiply_tile<Math, kVectors, kAdd>(a, {b.data + i, b.stride}, depth, {c.data + i, c.stride});
  if constexpr (kVectors > 1)
    if (i < width)
      multiply_panel<Math, kAdd, kVectors - 1>(a, {b.data + i, b.stride}, depth, width - i,
                                               {c.data + i, c.stride});
}

// Lanes of a product whose panel stays in the first-level cache.
constexpr int64_t kDepth = 128;

template <typename Math>
void multiply_panel_rows(const int32_t* x, int64_t batch, int64_t dim, const int32_t* panel,
                         float* out) {
  const int64_t depth = dim / Math::kPerLane;
  const auto rows = [&](int64_t first, int64_t d, float* sums) {
    const Lanes a{x + first * depth + d, depth}, b{panel + d * kPanelRows, kPanelRows};
    const int64_t count = depth - d < kDepth ? depth - d : kDepth;
    d == 0 ? multiply_panel<Math, false>(a, b, count, kPanelRows, {sums, kPanelRows})
           : multiply_panel<Math, true>(a, b, count, kPanelRows, {sums, kPanelRows});
  };
  const int64_t whole = batch / kPanel * kPanel;
  for (int64_t d = 0; d < depth; d += kDepth)
    for (int64_t first = 0; first < whole; first += kPanel)
      rows(first, d, out + first * kPanelRows);
  if (whole == batch) return;
  // The last rows together with some that are done already.
  alignas(64) float sums[kPanel * kPanelRows];
  for (int64_t d = 0; d < depth; d += kDepth) rows(batch - kPanel, d, sums);
  const int64_t rest = batch - whole;
  __builtin_memcpy(out + whole * kPanelRows, sums + (kPanel - rest) * kPanelRows,
                   rest * kPanelRows * sizeof(float));
}

template <typename Math, int kBits>
void unpack_lanes(const QuantizedTile& w, int64_t num_groups, int lane, int32_t* panel) {
  constexpr int kPairs = 16 / kBits;  // in a lane of codes
  for (int64_t g = 0; g < num_groups; ++g) {
    const Vector scale = load_half(w.scales + g * kRowTile + lane);
    const Vector minimum = w.minimums ? load_half(w.minimums + g * kRowTile + lane)
                           : kBits == 4 ? multiply(scale, broadcast(-8.0f))
                                        : zero();
    for (int j = 0; j < kBits; ++j) {
      const Integers packed = load_integers(w.codes + (g * kBits + j) * kRowTile + lane);
      for (int p = 0; p < kPairs; ++p, panel += 2 / Math::kPerLane * kPanelRows) {
        const Integers codes = kBits == 4 ? low_nibbles(packed, 4 * p)
                               : p == 0   ? even_bytes(packed)
                                          : odd_bytes(packed);
        Math::put_neighbours(panel + lane, fused(to_float(low_halves(codes)), scale, minimum),
                             fused(to_float(high_halves(codes)), scale, minimum));
      }
    }
  }
}

template <typename Math>
void unpack_tile(const QuantizedTile& w, int64_t num_groups, int32_t* panel) {
  for (int lane = 0; lane < kRowTile; lane += kWidth)
    w.bits == 4 ? unpack_lanes<Math, 4>(w, num_groups, lane, panel)
                : unpack_lanes<Math, 8>(w, num_groups, lane, panel);
}
