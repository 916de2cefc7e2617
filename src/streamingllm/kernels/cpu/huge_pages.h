// Memory for weights in pages of two megabytes, where the system has them.
//
// A core that reads through pages of four kilobytes waits for their addresses: it read memory at
// two thirds of the speed that it reached through large pages.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <cstdlib>
#include <memory>
#include <mutex>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace streamingllm {

// A piece of memory that several tensors share; pages that none of them touches take no memory.
class Slab {
 public:
  static constexpr int64_t kPage = int64_t{1} << 21, kBytes = kPage * 32, kLine = 64;

  explicit Slab(int64_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage) {
    data_ = static_cast<char*>(std::aligned_alloc(kPage, bytes_));
    TORCH_CHECK(data_ != nullptr, "weights of ", bytes, " bytes do not fit into memory");
#ifdef __linux__
    madvise(data_, bytes_, MADV_HUGEPAGE);  // refused by some kernels, which costs speed only
#endif
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() { std::free(data_); }

  // Take bytes, or null if too few are left.
  char* take(int64_t bytes) {
    bytes = (bytes + kLine - 1) / kLine * kLine;
    if (used_ + bytes > bytes_) return nullptr;
    char* at = data_ + used_;
    used_ += bytes;
    return at;
  }

 private:
  char* data_;
  int64_t bytes_, used_ = 0;
};

// An uninitialised tensor of bytes in large pages; a slab is freed with the last of its tensors.
inline at::Tensor empty_in_huge_pages(at::IntArrayRef shape) {
  static std::mutex mutex;
  static std::weak_ptr<Slab> current;
  const int64_t bytes = c10::multiply_integers(shape);
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Slab> slab = current.lock();
  char* data = slab ? slab->take(bytes) : nullptr;
  if (data == nullptr) {
    slab = std::make_shared<Slab>(std::max(bytes, Slab::kBytes));
    data = slab->take(bytes);
    current = slab;
  }
  return at::from_blob(data, shape, [slab](void*) {}, at::TensorOptions().dtype(at::kByte));
}

}  // namespace streamingllm
