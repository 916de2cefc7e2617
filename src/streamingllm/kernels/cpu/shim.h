// Conversions for the C functions by which compiled decode steps call operators without torch's
// dispatcher. Names and types are AOTInductor's: aoti_torch_cpu_<operator>; graphs/aot_cache.py
// declares them.
#pragma once
#include <torch/csrc/inductor/aoti_torch/utils.h>

#include <optional>

namespace streamingllm::shim {

inline const at::Tensor& tensor(AtenTensorHandle handle) {
  return *torch::aot_inductor::tensor_handle_to_tensor_pointer(handle);
}
inline std::optional<at::Tensor> optional(const AtenTensorHandle* handle) {
  return handle ? std::optional<at::Tensor>(tensor(*handle)) : std::nullopt;
}
inline void give(AtenTensorHandle* out, at::Tensor&& result) {
  *out = torch::aot_inductor::new_tensor_handle(std::move(result));
}

}  // namespace streamingllm::shim
