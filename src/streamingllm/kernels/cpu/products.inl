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
    for (int i = 0; i < kVectors; ++i) sums[r][i] = zero();
  for (int64_t d = 0; d < depth; ++d) {
    Integers row[kVectors];
    for (int i = 0; i < kVectors; ++i) row[i] = load_integers(b.row(d) + i * kWidth);
    for (int r = 0; r < kPanel; ++r) {
      const Integers lane = broadcast_lane(a.row(r)[d]);
      for (int i = 0; i < kVectors; ++i) sums[r][i] = Math::accumulate(sums[r][i], lane, row[i]);
    }
  }
  for (int r = 0; r < kPanel; ++r)
    for (int i = 0; i < kVectors; ++i) {
      float* to = c.row(r) + i * kWidth;  // last, for short sums of sums lose less than long ones
      store(to, kAdd ? add(load(to), sums[r][i]) : sums[r][i]);
    }
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

// Lanes that are multiplied before their sums are added to those of the lanes before.
constexpr int64_t kMaxDepth = 384;

template <typename Math>
void multiply_panel_rows(const int32_t* x, int64_t batch, int64_t dim, const int32_t* panel,
                         float* sums, const PanelOut& out) {
  const int64_t depth = dim / Math::kPerLane, blocks = (depth + kMaxDepth - 1) / kMaxDepth;
  const int64_t block = (depth + blocks - 1) / blocks;
  const auto rows = [&](int64_t first, int64_t d, float* to) {
    const Lanes a{x + first * depth + d, depth}, b{panel + d * kPanelRows, kPanelRows};
    const int64_t count = depth - d < block ? depth - d : block;
    d == 0 ? multiply_panel<Math, false>(a, b, count, kPanelRows, {to, kPanelRows})
           : multiply_panel<Math, true>(a, b, count, kPanelRows, {to, kPanelRows});
  };
  const auto give = [&](const float* from, int64_t first, int64_t count) {
    for (int64_t r = 0; r < count; ++r)
      from_floats(from + r * kPanelRows, out.width, out.data + (first + r) * out.stride, out.element);
  };
  const int64_t whole = batch / kPanel * kPanel;
  for (int64_t d = 0; d < depth; d += block)
    for (int64_t first = 0; first < whole; first += kPanel) {
      float* to = sums + first * kPanelRows;
      rows(first, d, to);
      if (d + block >= depth) give(to, first, kPanel);  // while they are in the cache
    }
  if (whole == batch) return;
  // The last rows together with some that are done already.
  alignas(64) float last[kPanel * kPanelRows];
  for (int64_t d = 0; d < depth; d += block) rows(batch - kPanel, d, last);
  give(last + (kPanel - batch + whole) * kPanelRows, whole, batch - whole);
}

// Call `work` with a number of the type that rows are made of; pairs are made of bfloat16 only.
template <typename Math, typename Work>
inline void with_type(Element element, const Work& work) {
  if constexpr (Math::kPerLane == 1)
    if (element == Element::kFloat32) return work(float());
  work(uint16_t());
}

// The lanes of the next kWidth * kPerLane numbers of a row.
template <typename Math, typename T>
inline Integers lanes_of(const T* row) {
  if constexpr (Math::kPerLane * sizeof(T) == sizeof(int32_t))
    return load_integers(reinterpret_cast<const int32_t*>(row));
  else
    return as_lanes(load(row));
}

template <typename Math, typename T>
inline void pack_row(const T* row, int64_t dim, int32_t* lanes) {
  if constexpr (Math::kPerLane * sizeof(T) == sizeof(int32_t))
    __builtin_memcpy(lanes, row, dim * sizeof(T));
  else
    for (int64_t d = 0; d < dim; d += kWidth) store_lanes(lanes + d, as_lanes(load(row + d)));
}

// Turn rows [count][dim], `stride` bytes apart, round: packed[dim / per lane][kColumns].
// Columns past the last row become zero.
template <typename Math, typename T, int kColumns>
void pack_columns(const char* rows, int64_t stride, int64_t count, int64_t dim, int32_t* packed) {
  constexpr int64_t kStep = kWidth * Math::kPerLane;  // numbers in a vector of lanes
  for (int64_t d = 0; d < dim; d += kStep)
    for (int64_t first = 0; first < kColumns; first += kWidth) {
      const int64_t left = dim - d < kStep ? dim - d : kStep;
      Integers square[kWidth];
      for (int j = 0; j < kWidth; ++j) {
        if (first + j >= count) {
          square[j] = no_integers();
          continue;
        }
        const T* row = reinterpret_cast<const T*>(rows + (first + j) * stride) + d;
        __builtin_prefetch(row + 2 * kStep);
        T last[kStep] = {};
        if (left < kStep) {
          __builtin_memcpy(last, row, left * sizeof(T));
          row = last;
        }
        square[j] = lanes_of<Math>(row);
      }
      turn(square);
      int32_t* to = packed + d / Math::kPerLane * kColumns + first;
      for (int i = 0; i < left / Math::kPerLane; ++i) store_lanes(to + i * kColumns, square[i]);
    }
}

// Lay out rows of dense weights as a panel.
template <typename Math>
void pack_weights(const char* rows, Element element, int64_t stride, int64_t count, int64_t dim,
                  int32_t* panel) {
  with_type<Math>(element, [&](auto number) {
    pack_columns<Math, decltype(number), kPanelRows>(rows, stride, count, dim, panel);
  });
}
