// The choice of kernels for this processor.
#include "dispatch.h"

#include <atomic>

namespace streamingllm {
namespace {

enum Isa : int { kFastest = 0, kAvx2 = 1, kAvx512 = 2 };

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* found = chosen.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = has_avx512() ? &avx512::kernels : &avx2::kernels;
    chosen.store(found, std::memory_order_relaxed);
  }
  return *found;
}

}  // namespace streamingllm

// Choose an instruction set before the first operator is called: one of `Isa`. Return whether this
// processor has it; the choice stays as it was where it does not.
extern "C" int streamingllm_use_isa(int isa) {
  using namespace streamingllm;
  if (isa < kFastest || isa > kAvx512 || (isa == kAvx512 && !has_avx512())) return 0;
  chosen = isa == kAvx2 || !has_avx512() ? &avx2::kernels : &avx512::kernels;
  return 1;
}
