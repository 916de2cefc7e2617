// Floats from and to the elements of tensors.
// Included once per instruction set, inside its namespace.

inline float widened(float x) { return x; }
inline float widened(uint16_t x) {  // bfloat16
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof wide);
  return wide;
}

template <typename T>
void widen(const T* x, int64_t count, float scale, float* out) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth)
    store(out + i, multiply(load(x + i), broadcast(scale)));
  for (; i < count; ++i) out[i] = widened(x[i]) * scale;
}

void to_floats(const void* x, Element element, int64_t count, float scale, float* out) {
  if (element == Element::kFloat32)
    widen(static_cast<const float*>(x), count, scale, out);
  else
    widen(static_cast<const uint16_t*>(x), count, scale, out);
}

void from_floats(const float* x, int64_t count, void* out, Element element) {
  if (element == Element::kFloat32) {
    __builtin_memcpy(out, x, count * sizeof(float));
    return;
  }
  uint16_t* halves = static_cast<uint16_t*>(out);
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(halves + i, load(x + i));
  if (i == count) return;
  float rest[kWidth] = {};
  uint16_t rounded_rest[kWidth];
  __builtin_memcpy(rest, x + i, (count - i) * sizeof(float));
  store(rounded_rest, load(rest));
  __builtin_memcpy(halves + i, rounded_rest, (count - i) * sizeof(uint16_t));
}

// Call `work` with a number of the type that an element is.
template <typename Work>
inline void with_number(Element element, const Work& work) {
  element == Element::kFloat32 ? work(float()) : work(uint16_t());
}
