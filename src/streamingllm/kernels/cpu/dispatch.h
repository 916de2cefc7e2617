// Picks the kernels for this processor.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels.h"

namespace streamingllm {

inline const Kernels& kernels() {
  static const Kernels& fastest =
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni") ? avx512::kernels
                                                                              : avx2::kernels;
  return fastest;
}

inline Element element_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Element::kFloat32;
    case at::kBFloat16: return Element::kBFloat16;
    case at::kChar: return Element::kInt8;
    default: TORCH_CHECK(false, x.scalar_type(), ": must be float32, bfloat16 or int8");
  }
}

// The numbers of a tensor times `scale`, in a buffer that is kept from call to call.
inline const float* as_floats(const at::Tensor& x, double scale, std::vector<float>& buffer) {
  const at::Tensor dense = x.contiguous();
  buffer.resize(dense.numel());
  kernels().to_floats(dense.const_data_ptr(), element_of(dense), dense.numel(),
                      static_cast<float>(scale), buffer.data());
  return buffer.data();
}

}  // namespace streamingllm
