// How likely a row of logits makes one of them.
// Included once per instruction set, inside its namespace.

constexpr int kRunning = 4;  // sums side by side, so that none waits for its own last step

// Hand a row's logits to `visit`, a vector at a time; what the last one has too many is kNothing.
template <typename T, typename Visit>
inline void visit_row(const T* row, int64_t count, const Visit& visit) {
  int64_t i = 0;
  for (; i + kRunning * kWidth <= count; i += kRunning * kWidth)
    for (int j = 0; j < kRunning; ++j) visit(j, load(row + i + j * kWidth));
  for (; i < count; i += kWidth) {
    float last[kWidth];
    for (int j = 0; j < kWidth; ++j) last[j] = i + j < count ? widened(row[i + j]) : kNothing;
    visit(0, load(last));
  }
}

template <typename T>
float row_nll(const T* row, int64_t count, int64_t target) {
  Vector tops[kRunning], sums[kRunning];
  for (int j = 0; j < kRunning; ++j) {
    tops[j] = broadcast(kNothing);
    sums[j] = zero();
  }
  visit_row(row, count, [&](int j, Vector x) { tops[j] = maximum(tops[j], x); });
  for (int j = 1; j < kRunning; ++j) tops[0] = maximum(tops[0], tops[j]);
  const float highest = greatest(tops[0]);
  visit_row(row, count, [&](int j, Vector x) {
    const Vector below = maximum(broadcast(kNothing), subtract(x, broadcast(highest)));  // no -inf
    sums[j] = add(sums[j], power(multiply(below, broadcast(kLog2E))));
  });
  for (int j = 1; j < kRunning; ++j) sums[0] = add(sums[0], sums[j]);
  return __builtin_logf(sum(sums[0])) + (highest - widened(row[target]));
}

float negative_log_likelihood(const char* row, Element element, int64_t count, int64_t target) {
  if (element == Element::kFloat32)
    return row_nll(reinterpret_cast<const float*>(row), count, target);
  return row_nll(reinterpret_cast<const uint16_t*>(row), count, target);
}
