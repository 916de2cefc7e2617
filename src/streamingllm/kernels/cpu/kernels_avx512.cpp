#include "blocks.h"
#include "kernels.h"
#include "vector_avx512.h"

namespace streamingllm::avx512 {
namespace {

#include "exponential.inl"

#include "convert.inl"

#include "dots.inl"

#include "decode.inl"

#include "linear.inl"

#include "products.inl"

#include "blocks.inl"

#include "byte_codes.inl"

#include "code_dots.inl"

#include "block_products.inl"

#include "windowed.inl"

#include "likelihood.inl"

#include "elementwise.inl"

#include "matmul_kernels.inl"

}  // namespace

const Kernels kernels = {
    .to_floats = to_floats,
    .from_floats = from_floats,
    .attend_span = attend_span,
    .multiply_quantized = multiply_quantized,
    .multiply_blocks = multiply_blocks,
    .unpack_block_row = unpack_block_row,
    .quantize_activations = quantize_activations,
    .split_codes = split_codes,
    .multiply_dense = multiply_dense,
    .by_floats = make_matmul_kernels<Floats>(),
    .by_pairs = make_matmul_kernels<Pairs>(),
    .negative_log_likelihood = negative_log_likelihood,
    .argmax = argmax,
    .normalize = normalize,
    .swish_gate = swish_gate,
    .rotate = rotate,
};

}  // namespace streamingllm::avx512
