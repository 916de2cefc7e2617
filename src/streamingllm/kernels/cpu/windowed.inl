// Attention of a chunk over the sinks and its windows (FlashAttention-2, Dao 2023).
// Included once per instruction set, inside its namespace.

constexpr float kFloor = -1e20f;  // under any score, and so far above kNothing that its weight is 0

// Give each lane the values of its columns.
template <typename Math, typename T>
void pack_values(const char* values, int64_t stride, int64_t count, int64_t dim, int32_t* packed) {
  static const T nothing[kGreatestDim] = {};
  const auto row = [&](int64_t i) {
    return i < count ? reinterpret_cast<const T*>(values + i * stride) : nothing;
  };
  for (int64_t i = 0; i < kColumnBlock; i += Math::kPerLane, packed += dim) {
    if constexpr (Math::kPerLane == 1) {
      pack_row<Math>(row(i), dim, packed);
    } else {
      const T *even = row(i), *odd = row(i + 1);
      for (int64_t d = 0; d < dim; ++d)
        packed[d] = static_cast<int32_t>(even[d] | static_cast<uint32_t>(odd[d]) << 16);
    }
  }
}

// Queries and their unfinished sums; the rows are query by query, the heads of each side by side.
struct QueryRows {
  int64_t count;            // padded to whole panels
  Matrix<int32_t> q;
  Matrix<int32_t> q_for_sinks;
  Matrix<float> out;
  Matrix<float> total;  // of the weights, in kWidth parts
  float* running;       // log2 of what weights are relative to
};

int64_t padded_rows(const WindowedTask& task) {
  return (task.num_queries * task.num_heads + kPanel - 1) / kPanel * kPanel;
}

template <typename Math>
int64_t count_scratch(const WindowedTask& task) {
  return padded_rows(task) * (2 * task.key_dim / Math::kPerLane + task.value_dim + kWidth + 1);
}

template <typename Math>
QueryRows lay_out(const WindowedTask& task, int32_t* scratch) {
  const int64_t count = padded_rows(task), lanes = task.key_dim / Math::kPerLane;
  __builtin_memset(scratch, 0, count_scratch<Math>(task) * sizeof(int32_t));
  float* floats = reinterpret_cast<float*>(scratch + 2 * count * lanes);
  float* total = floats + count * task.value_dim;
  return {count,
          {scratch, lanes},
          {scratch + count * lanes, lanes},
          {floats, task.value_dim},
          {total, kWidth},
          total + count * kWidth};
}

// Let a row's sums catch up with a new maximum.
inline void raise_running(const QueryRows& rows, int64_t row, float highest) {
  const Vector shrink = power(broadcast(rows.running[row] - highest));
  const Matrix<float> parts[] = {rows.out, rows.total};
  for (const auto& sums : parts)
    for (int64_t d = 0; d < sums.stride; d += kWidth)
      store(sums.row(row) + d, multiply(load(sums.row(row) + d), shrink));
  rows.running[row] = highest;
}

// Turn a row's scores, of which [first, last) are seen, into weights.
template <typename Math>
inline void weigh_row(const WindowedTask& task, float* scores, int64_t count, int64_t first,
                      int64_t last, const QueryRows& rows, int64_t row, int32_t* weights) {
  float factor = task.scale * kLog2E;
  if (task.softcap != 0.0f) {
    const Vector scale = broadcast(task.scale);
    for (int64_t k = 0; k < count; k += kWidth)
      store(scores + k, capped(multiply(load(scores + k), scale), task.softcap));
    factor = kLog2E;
  }
  for (int64_t k = 0; k < first; ++k) scores[k] = kNothing;
  for (int64_t k = last; k < count; ++k) scores[k] = kNothing;
  Vector top = load(scores);
  for (int64_t k = kWidth; k < count; k += kWidth) top = maximum(top, load(scores + k));
  top = multiply(top, broadcast(factor));
  if (any_above(top, broadcast(rows.running[row]))) raise_running(rows, row, greatest(top));
  const Vector shift = broadcast(-rows.running[row]);
  Vector total = load(rows.total.row(row));
  for (int64_t k = 0; k < count; k += kWidth) {
    const Vector w = power(fused(load(scores + k), broadcast(factor), shift));
    Math::put(weights, k, w);
    total = add(total, w);
  }
  store(rows.total.row(row), total);
}

// Where in a block the columns lie that the rows of a panel see.
struct Span {
  int64_t first[kPanel], last[kPanel];
  int64_t begin = kColumnBlock, end = 0;  // of all, in whole vectors

  Span(const WindowedTask& task, const PackedColumns& columns, int64_t offset, int64_t row) {
    for (int r = 0; r < kPanel; ++r) {
      const int64_t i = (row + r) / task.num_heads;
      const int64_t query = i < task.num_queries ? i : task.num_queries - 1;  // padding
      first[r] = within_block(columns.first[query] - offset);
      last[r] = within_block(columns.last[query] - offset);
      if (first[r] < begin) begin = first[r];
      if (last[r] > end) end = last[r];
    }
    begin = begin / kWidth * kWidth;
    end = (end + kWidth - 1) / kWidth * kWidth;
  }
  static int64_t within_block(int64_t i) { return i < 0 ? 0 : i > kColumnBlock ? kColumnBlock : i; }
};

template <typename Math>
void attend_panel(const WindowedTask& task, const PackedBlock& block, const Span& span,
                  const Matrix<int32_t>& q, const QueryRows& rows, int64_t row) {
  alignas(64) float scores[kPanel * kColumnBlock];
  alignas(64) int32_t weights[kPanel * kColumnBlock];
  const int64_t count = span.end - span.begin;
  multiply_panel<Math, false>({q.row(row), q.stride}, {block.keys + span.begin, kColumnBlock},
                              q.stride, count, {scores, kColumnBlock});
  for (int r = 0; r < kPanel; ++r)
    weigh_row<Math>(task, scores + r * kColumnBlock, count, span.first[r] - span.begin,
                    span.last[r] - span.begin, rows, row + r, weights + r * kColumnBlock);
  const int32_t* values = block.values + span.begin / Math::kPerLane * task.value_dim;
  multiply_panel<Math, true>({weights, kColumnBlock}, {values, task.value_dim},
                             count / Math::kPerLane, task.value_dim,
                             {rows.out.row(row), rows.out.stride});
}

template <typename Math>
void attend_columns(const WindowedTask& task, const PackedColumns& columns,
                    const Matrix<int32_t>& q, const QueryRows& rows) {
  int64_t begin = INT64_MAX, end = 0;
  for (int64_t i = 0; i < task.num_queries; ++i) {
    if (columns.first[i] < begin) begin = columns.first[i];
    if (columns.last[i] > end) end = columns.last[i];
  }
  for (int64_t c = begin / kColumnBlock; c * kColumnBlock < end; ++c) {
    const PackedBlock block{
        columns.blocks.keys + c * kColumnBlock * task.key_dim / Math::kPerLane,
        columns.blocks.values + c * kColumnBlock * task.value_dim / Math::kPerLane};
    for (int64_t row = 0; row < rows.count; row += kPanel) {
      const Span span(task, columns, c * kColumnBlock, row);
      if (span.begin < span.end) attend_panel<Math>(task, block, span, q, rows, row);
    }
  }
}

template <typename Math, typename T>
void attend_heads_of(const WindowedTask& task, int32_t* scratch) {
  const QueryRows rows = lay_out<Math>(task, scratch);
  const auto each_row = [&](const QueryHeads& heads, const auto& visit) {
    for (int64_t i = 0; i < task.num_queries; ++i)
      for (int64_t h = 0; h < task.num_heads; ++h)
        visit(i * task.num_heads + h, h,
              reinterpret_cast<T*>(heads.data + i * heads.query_stride + h * heads.head_stride));
  };
  for (int64_t row = 0; row < rows.count; ++row) rows.running[row] = kFloor;
  each_row(task.q, [&](int64_t row, int64_t head, const T* q) {
    pack_row<Math>(q, task.key_dim, rows.q.row(row));
    if (!task.sink_logits || !(task.sink_logits[head] > kFloor)) return;
    rows.running[row] = task.sink_logits[head] * kLog2E;
    rows.total.row(row)[0] = 1.0f;
  });
  if (task.sinks.blocks.keys) {
    each_row(task.q_for_sinks, [&](int64_t row, int64_t, const T* q) {
      pack_row<Math>(q, task.key_dim, rows.q_for_sinks.row(row));
    });
    attend_columns<Math>(task, task.sinks, rows.q_for_sinks, rows);
  }
  attend_columns<Math>(task, task.window, rows.q, rows);
  each_row(task.out, [&](int64_t row, int64_t, T* out) {
    const Vector inverse = broadcast(1.0f / sum(load(rows.total.row(row))));
    float* sums = rows.out.row(row);
    for (int64_t d = 0; d < task.value_dim; d += kWidth)
      store(sums + d, multiply(load(sums + d), inverse));
    from_floats(sums, task.value_dim, out, task.element);
  });
}

template <typename Math>
void pack_block(const Rows& rows, int64_t count, int64_t key_dim, int64_t value_dim,
                const PackedBlock& block) {
  with_type<Math>(rows.element, [&](auto number) {
    using T = decltype(number);
    pack_columns<Math, T, kColumnBlock>(rows.keys, rows.key_stride, count, key_dim, block.keys);
    pack_values<Math, T>(rows.values, rows.value_stride, count, value_dim, block.values);
  });
}

template <typename Math>
void attend_windows(const WindowedTask& task, int32_t* scratch) {
  with_type<Math>(task.element, [&](auto number) {
    attend_heads_of<Math, decltype(number)>(task, scratch);
  });
}
