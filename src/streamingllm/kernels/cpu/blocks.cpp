// The operators on weights in the bits of a GGUF file; see kernels/reference.py for shapes.
#include "blocks.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "dispatch.h"
#include "products.h"
#include "shim.h"
#include "thread_pool.h"

namespace streamingllm {
namespace {

// Refuse what `pack_blocks` did not return for these sizes.
void check_blocks(const at::Tensor& blocks, int64_t format, int64_t num_rows, int64_t num_columns) {
  check_dims("blocks", blocks, 2, "[out_features / 16, bytes of a tile]");
  check_dtype("blocks", blocks, at::kByte);
  TORCH_CHECK(blocks.is_contiguous(), "blocks must be contiguous; pass what pack_blocks returns");
  TORCH_CHECK(num_rows > 0, "out_features=", num_rows, " must be positive");
  const bool is_known = with_format(format, [&]<typename F>() {
    const int64_t multiple = F::kFactored ? kSpan : kGroup;
    TORCH_CHECK(num_columns > 0 && num_columns % multiple == 0, "in_features=", num_columns,
                " must be a multiple of ", multiple);
    check_shape("blocks", blocks,
                {(num_rows + kRowTile - 1) / kRowTile, tile_layout<F>(num_columns).bytes});
  });
  TORCH_CHECK(is_known, "format=", format, " is no ggml type of kernels/blocks.py");
}

at::Tensor block_linear(const at::Tensor& x, const at::Tensor& blocks, int64_t format,
                        int64_t num_rows) {
  TORCH_CHECK(x.dim() > 0, "x is ", x.sizes(), "; it must have features");
  const int64_t dim = x.size(-1);
  check_activations(x, dim);
  check_blocks(blocks, format, num_rows, dim);
  if (x.numel() == 0) return empty_for(x, num_rows);
  if (!is_float(x))
    return block_linear(x.to(at::kFloat), blocks, format, num_rows).to(x.scalar_type());
  const char* data = static_cast<const char*>(blocks.const_data_ptr());
  const int64_t tile_bytes = blocks.size(1);
  const auto unpack = [&](const MatmulKernels& matmul, int64_t i, int32_t* panel) {
    matmul.unpack_blocks(format, data + i * tile_bytes, dim / kGroup, panel);
  };
  if (unpacks_weights(x, dim)) return multiply_many_tiles(x, num_rows, unpack);
  int low_bits = 0;
  with_format(format, [&]<typename F>() { low_bits = F::kLow; });
  const QuantizedActivations activations(x, dim, low_bits);
  const auto multiply = [&](int64_t i, const Activations& rows, float* out, int64_t stride) {
    kernels().multiply_blocks(format, data + i * tile_bytes, rows, out, stride);
  };
  return multiply_tiles(x, activations.get(), num_rows, multiply);
}

at::Tensor block_rows(const at::Tensor& ids, const at::Tensor& blocks, int64_t format,
                      int64_t num_rows, int64_t num_columns) {
  check_readable("ids", ids);
  check_dtype("ids", ids, at::kLong);
  check_blocks(blocks, format, num_rows, num_columns);
  auto shape = ids.sizes().vec();
  shape.push_back(num_columns);
  const at::Tensor out = at::empty(shape, ids.options().dtype(at::kFloat));
  const at::Tensor dense = ids.contiguous();
  const int64_t *numbers = dense.const_data_ptr<int64_t>(), count = dense.numel();
  for (int64_t i = 0; i < count; ++i)
    TORCH_CHECK_INDEX(numbers[i] >= 0 && numbers[i] < num_rows, "ids holds ", numbers[i],
                      "; it must be at least 0 and less than ", num_rows);
  const char* data = static_cast<const char*>(blocks.const_data_ptr());
  float* to = out.mutable_data_ptr<float>();
  parallel_for_ranges(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      kernels().unpack_block_row(format, data + numbers[i] / kRowTile * blocks.size(1),
                           static_cast<int>(numbers[i] % kRowTile), num_columns, to + i * num_columns);
  });
  return out;
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_block_linear(AtenTensorHandle x, AtenTensorHandle blocks,
                                                      int64_t format, int64_t out_features,
                                                      AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, block_linear(shim::tensor(x), shim::tensor(blocks), format, out_features));
  })
}

extern "C" AOTITorchError aoti_torch_cpu_block_rows(AtenTensorHandle ids, AtenTensorHandle blocks,
                                                    int64_t format, int64_t out_features,
                                                    int64_t in_features, AtenTensorHandle* out) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    shim::give(out, block_rows(shim::tensor(ids), shim::tensor(blocks), format, out_features,
                               in_features));
  })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) {
  library.impl("block_linear", &block_linear);
  library.impl("block_rows", &block_rows);
}

}  // namespace streamingllm
