// Included once per instruction set, inside its namespace.

constexpr float kLog2E = 1.44269504f;
constexpr float kNothing = -1e30f;  // a score whose weight is 0

// e^x for x <= 88 to 2e-7: 2^n times a polynomial (Cephes' expf) on [-ln2 / 2, ln2 / 2].
inline Vector exponential(Vector x) {
  x = maximum(broadcast(-127.0f * 0.693147181f), x);  // in this order NaN stays
  const Vector n = round(multiply(x, broadcast(1.44269504f)));
  Vector r = fused(n, broadcast(-0.693359375f), x);
  r = fused(n, broadcast(2.12194440e-4f), r);
  Vector p = broadcast(1.9875691500e-4f);
  p = fused(p, r, broadcast(1.3981999507e-3f));
  p = fused(p, r, broadcast(8.3334519073e-3f));
  p = fused(p, r, broadcast(4.1665795894e-2f));
  p = fused(p, r, broadcast(1.6666665459e-1f));
  p = fused(p, r, broadcast(5.0000001201e-1f));
  p = add(fused(p, multiply(r, r), r), broadcast(1.0f));
  return times_power_of_two(p, n);
}

// 2^x for x <= 0, however low, to 1e-7: the fraction by a minimax polynomial.
inline Vector power(Vector x) {
  const Vector n = round_down(x), r = subtract(x, n);
  Vector p = broadcast(1.877576675e-3f);
  p = fused(p, r, broadcast(8.989340090e-3f));
  p = fused(p, r, broadcast(5.582631805e-2f));
  p = fused(p, r, broadcast(2.401536170e-1f));
  p = fused(p, r, broadcast(6.931530732e-1f));
  p = fused(p, r, broadcast(9.999999251e-1f));
  return times_power_of_two(p, n);
}

// softcap * tanh(x / softcap), with tanh(y) = sign(y) * (1 - e^-2|y|) / (1 + e^-2|y|).
inline Vector capped(Vector x, float softcap) {
  const Vector y = divide(x, broadcast(softcap));
  const Vector size = maximum(y, subtract(zero(), y));
  const Vector e = exponential(multiply(size, broadcast(-2.0f)));
  const Vector t = divide(subtract(broadcast(1.0f), e), add(broadcast(1.0f), e));
  // y / |y| without a branch; t is 0 where y is.
  const Vector sign = divide(y, maximum(size, broadcast(1e-30f)));
  return multiply(multiply(t, sign), broadcast(softcap));
}
