#include "kernels.h"
#include "vector_avx512.h"

namespace streamingllm::avx512 {
namespace {

#include "exponential.inl"

#include "dots.inl"

#include "decode.inl"

#include "linear.inl"

}  // namespace

const Kernels kernels = {attend_span, multiply_quantized, quantize_activations, multiply_dense};

}  // namespace streamingllm::avx512
