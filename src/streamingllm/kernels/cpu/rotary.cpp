// The operator `rotary_table`; see kernels/reference.py for shapes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>

#include "checks.h"
#include "shim.h"

namespace streamingllm {
namespace {

std::tuple<at::Tensor, at::Tensor> rotary_table(const at::Tensor& positions,
                                                const at::Tensor& inv_freq, double scaling) {
  check_readable("positions", positions);
  check_dtype("positions", positions, at::kLong);
  check_dims("inv_freq", inv_freq, 1, "[pairs]");
  TORCH_CHECK(inv_freq.is_floating_point(), "inv_freq is ", inv_freq.scalar_type(),
              "; it must be floating point");
  const at::Tensor where = positions.contiguous(), turns = inv_freq.to(at::kDouble).contiguous();
  auto shape = positions.sizes().vec();
  shape.push_back(turns.size(0));
  const at::Tensor cosines = at::empty(shape, positions.options().dtype(at::kFloat));
  const at::Tensor sines = at::empty(shape, positions.options().dtype(at::kFloat));
  float *c = cosines.mutable_data_ptr<float>(), *s = sines.mutable_data_ptr<float>();
  for (int64_t i = 0; i < where.numel(); ++i)
    for (int64_t pair = 0; pair < turns.numel(); ++pair) {
      const double angle = static_cast<double>(where.const_data_ptr<int64_t>()[i]) *
                           turns.const_data_ptr<double>()[pair];
      *c++ = static_cast<float>(std::cos(angle) * scaling);
      *s++ = static_cast<float>(std::sin(angle) * scaling);
    }
  return {cosines, sines};
}

}  // namespace

extern "C" AOTITorchError aoti_torch_cpu_rotary_table(AtenTensorHandle positions,
                                                      AtenTensorHandle inv_freq, double scaling,
                                                      AtenTensorHandle* cosines,
                                                      AtenTensorHandle* sines) {
  AOTI_TORCH_CONVERT_EXCEPTION_TO_ERROR_CODE({
    auto [c, s] = rotary_table(shim::tensor(positions), shim::tensor(inv_freq), scaling);
    shim::give(cosines, std::move(c));
    shim::give(sines, std::move(s));
  })
}

TORCH_LIBRARY_IMPL(streamingllm, CPU, library) { library.impl("rotary_table", &rotary_table); }

}  // namespace streamingllm
