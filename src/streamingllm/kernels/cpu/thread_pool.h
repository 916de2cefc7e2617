// A thread pool for many short tasks in a row.
//
// A decode step is some hundred short products and attentions with a few microseconds of other work
// between them. So a thread spins for a moment before it blocks, and a thread that starts late
// loses its share to the others.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace streamingllm {

namespace thread_pool {

using Task = void (*)(const void* work, int64_t number);

// Call task(work, i), which must not throw, for all i < count, on at most `num_threads` threads.
void parallel_for(int64_t count, int64_t num_threads, Task task, const void* work);

}  // namespace thread_pool

// Call work(i) for all i < count on torch's number of threads. Each thread starts with its own run.
template <typename Work>
void parallel_for(int64_t count, const Work& work) {
  const auto task = [](const void* w, int64_t i) { (*static_cast<const Work*>(w))(i); };
  thread_pool::parallel_for(count, at::get_num_threads(), task, &work);
}

// Call work(i) for all i < count on torch's own threads, which still spin after torch's products.
template <typename Work>
void parallel_for_torch(int64_t count, const Work& work) {
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), count), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) work(i);
  });
}

enum class Threads { kOwn, kTorch };

// Call work(first, last) for runs of neighbours that cover all i < count, several for each thread.
template <typename Work>
void parallel_for_ranges(int64_t count, const Work& work, Threads threads = Threads::kOwn) {
  constexpr int64_t kRunsPerThread = 8;
  const int64_t runs = std::min(count, kRunsPerThread * at::get_num_threads());
  const auto run = [&](int64_t i) { work(i * count / runs, (i + 1) * count / runs); };
  threads == Threads::kOwn ? parallel_for(runs, run) : parallel_for_torch(runs, run);
}

}  // namespace streamingllm
