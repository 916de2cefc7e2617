// Operations between the products of a layer, rounded wherever the model's own code rounds.
// Included once per instruction set, inside its namespace.

inline Vector rounded_as(const float*, Vector x) { return x; }
inline Vector rounded_as(const uint16_t*, Vector x) { return rounded(x); }

template <typename T>
void normalize_row(const T* x, const T* weight, int64_t dim, float epsilon, T* out) {
  Vector squares = zero();
  for (int64_t d = 0; d < dim; d += kWidth) {
    const Vector v = load(x + d);
    squares = fused(v, v, squares);
  }
  const float mean = sum(squares) / static_cast<float>(dim);
  const Vector scale = broadcast(1.0f / __builtin_sqrtf(mean + epsilon));
  for (int64_t d = 0; d < dim; d += kWidth)
    store(out + d, multiply(rounded_as(x, multiply(load(x + d), scale)), load(weight + d)));
}

// x / (1 + e^-x); under -87 as good as 0.
inline Vector swish(Vector x) {
  const Vector power = exponential(minimum(subtract(zero(), x), broadcast(87.0f)));
  return divide(x, add(broadcast(1.0f), power));
}

template <typename T>
void swish_gate_row(const T* gate, const T* x, int64_t count, T* out) {
  for (int64_t i = 0; i < count; i += kWidth)
    store(out + i, multiply(rounded_as(x, swish(load(gate + i))), load(x + i)));
}

template <typename T>
void rotate_heads(const QueryHeads& x, int64_t num_heads, const T* cosines, const T* sines,
                  int64_t count, const QueryHeads& out) {
  for (int64_t i = 0; i < count; i += kWidth) {
    const Vector c = load(cosines + i), s = load(sines + i);
    for (int64_t head = 0; head < num_heads; ++head) {
      const T* from = reinterpret_cast<const T*>(x.data + head * x.head_stride) + i;
      T* to = reinterpret_cast<T*>(out.data + head * out.head_stride) + i;
      const Vector first = load(from), second = load(from + count);
      const auto product = [&](Vector a, Vector b) { return rounded_as(from, multiply(a, b)); };
      store(to, subtract(product(first, c), product(second, s)));
      store(to + count, add(product(second, c), product(first, s)));
    }
  }
}

void normalize(const void* x, const void* weight, Element element, int64_t dim, float epsilon,
               void* out) {
  with_number(element, [&](auto number) {
    using T = decltype(number);
    normalize_row(static_cast<const T*>(x), static_cast<const T*>(weight), dim, epsilon,
                  static_cast<T*>(out));
  });
}

void swish_gate(const void* gate, const void* x, Element element, int64_t count, void* out) {
  with_number(element, [&](auto number) {
    using T = decltype(number);
    swish_gate_row(static_cast<const T*>(gate), static_cast<const T*>(x), count,
                   static_cast<T*>(out));
  });
}

void rotate(const QueryHeads& x, int64_t num_heads, const void* cosines, const void* sines,
            Element element, int64_t count, const QueryHeads& out) {
  with_number(element, [&](auto number) {
    using T = decltype(number);
    rotate_heads(x, num_heads, static_cast<const T*>(cosines), static_cast<const T*>(sines), count,
                 out);
  });
}
