// Likelihood and argmax of a row of logits.
// Included once per instruction set, inside its namespace.

constexpr int kRunning = 4;  // independent sums, which hide the latency of an addition

// Call `visit` with a row's logits, a vector at a time; the last one is filled up with kNothing.
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
float row_greatest(const T* row, int64_t count) {
  Vector tops[kRunning];
  for (auto& top : tops) top = broadcast(kNothing);
  visit_row(row, count, [&](int j, Vector x) { tops[j] = maximum(tops[j], x); });
  for (int j = 1; j < kRunning; ++j) tops[0] = maximum(tops[0], tops[j]);
  return greatest(tops[0]);
}

// The first of the greatest; 0 where all are minus infinity.
template <typename T>
int64_t row_argmax(const T* row, int64_t count) {
  const float highest = row_greatest(row, count);
  int64_t i = 0;
  const Vector below = broadcast(__builtin_nextafterf(highest, -__builtin_inff()));
  while (i + kWidth <= count && !any_above(load(row + i), below)) i += kWidth;
  while (i < count && widened(row[i]) != highest) ++i;
  return i < count ? i : 0;
}

template <typename T>
float row_nll(const T* row, int64_t count, int64_t target) {
  const float highest = row_greatest(row, count);
  Vector sums[kRunning];
  for (auto& sum : sums) sum = zero();
  visit_row(row, count, [&](int j, Vector x) {
    const Vector below = maximum(broadcast(kNothing), subtract(x, broadcast(highest)));  // no -inf
    sums[j] = add(sums[j], power(multiply(below, broadcast(kLog2E))));
  });
  for (int j = 1; j < kRunning; ++j) sums[0] = add(sums[0], sums[j]);
  return __builtin_logf(sum(sums[0])) + (highest - widened(row[target]));
}

int64_t argmax(const char* row, Element element, int64_t count) {
  if (element == Element::kFloat32) return row_argmax(reinterpret_cast<const float*>(row), count);
  return row_argmax(reinterpret_cast<const uint16_t*>(row), count);
}

float negative_log_likelihood(const char* row, Element element, int64_t count, int64_t target) {
  if (element == Element::kFloat32)
    return row_nll(reinterpret_cast<const float*>(row), count, target);
  return row_nll(reinterpret_cast<const uint16_t*>(row), count, target);
}
