// The kernels for this processor and for the data types of tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels.h"

namespace streamingllm {

// The kernels of the fastest instruction set, unless streamingllm_use_isa has chosen another.
const Kernels& kernels();

inline const MatmulKernels& matmul_kernels_for(Element element) {
  static const bool has_pairs =
      kernels().by_pairs.per_lane != 0 && __builtin_cpu_supports("avx512bf16");
  return element == Element::kBFloat16 && has_pairs ? kernels().by_pairs : kernels().by_floats;
}

inline Element element_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Element::kFloat32;
    case at::kBFloat16: return Element::kBFloat16;
    case at::kChar: return Element::kInt8;
    default:
      TORCH_CHECK(false, "dtype=", x.scalar_type(), "; it must be float32, bfloat16 or int8");
  }
}

inline at::Tensor with_whole_rows(const at::Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

// The heads of x [batch, num_heads, queries, dim], from one query of a stream on.
inline QueryHeads heads_of(const at::Tensor& x, int64_t stream, int64_t head, int64_t query) {
  const int64_t i = stream * x.stride(0) + head * x.stride(1) + query * x.stride(2);
  return {static_cast<char*>(const_cast<void*>(x.const_data_ptr())) + i * x.element_size(),
          x.stride(2) * x.element_size(), x.stride(1) * x.element_size()};
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
