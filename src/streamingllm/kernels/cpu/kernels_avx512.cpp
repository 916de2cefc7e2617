#include "kernels.h"
#include "vector_avx512.h"

namespace streamingllm::avx512 {
namespace {

#include "exponential.inl"

#include "convert.inl"

#include "dots.inl"

#include "decode.inl"

#include "linear.inl"

}  // namespace

const Kernels kernels = {to_floats, from_floats, attend_span, multiply_quantized, quantize_activations, multiply_dense};

}  // namespace streamingllm::avx512
