#include "thread_pool.h"

#include <immintrin.h>
#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

namespace streamingllm::thread_pool {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(500);  // longer than the gap between two steps
constexpr int kSpinsPerCheck = 256;  // of the clock, or before the processor is yielded

// The tasks [first, last) of a thread; other threads take from its end.
struct alignas(64) Share {
  std::atomic<uint64_t> packed{0};

  static uint64_t pack(uint64_t first, uint64_t last) { return first << 32 | last; }

  // Take one task; return -1 if none is left.
  int64_t take(bool from_end) {
    uint64_t now = packed.load(std::memory_order_acquire);
    for (;;) {
      const uint64_t first = now >> 32, last = now & 0xFFFFFFFF;
      if (first >= last) return -1;
      const uint64_t rest = from_end ? pack(first, last - 1) : pack(first + 1, last);
      if (packed.compare_exchange_weak(now, rest, std::memory_order_acq_rel))
        return static_cast<int64_t>(from_end ? last - 1 : first);
    }
  }
};

class ThreadPool {
 public:
  explicit ThreadPool(int64_t size) : size_(size), shares_(new Share[size]) {
    for (int64_t thread = 1; thread < size; ++thread)
      std::thread([this, thread] { work_for_ever(thread); }).detach();
  }

  int64_t size() const { return size_; }

  void run(int64_t count, int64_t num_threads, Task task, const void* work) {
    task_ = task;
    work_ = work;
    unfinished_.store(count, std::memory_order_relaxed);
    num_threads_.store(num_threads, std::memory_order_relaxed);
    for (int64_t t = 0; t < num_threads; ++t)
      shares_[t].packed.store(
          Share::pack(t * count / num_threads, (t + 1) * count / num_threads),
          std::memory_order_release);
    calls_.fetch_add(1);
    if (blocked_.load() > 0) calls_.notify_all();
    work_through(0);
    for (int spins = 1; unfinished_.load(std::memory_order_acquire) > 0; ++spins)
      spins % kSpinsPerCheck == 0 ? std::this_thread::yield() : _mm_pause();
  }

 private:
  // Do own tasks, then those of other threads. `task_` and `work_` belong to the call of a task
  // that was taken, because the call cannot end before that task is done.
  void work_through(int64_t thread) {
    const int64_t num_threads = num_threads_.load(std::memory_order_relaxed);
    if (thread >= num_threads) return;
    for (int64_t i = 0; i < num_threads; ++i) {
      Share& share = shares_[(thread + i) % num_threads];
      for (int64_t number; (number = share.take(i > 0)) >= 0;) do_task(number);
    }
  }

  void do_task(int64_t number) {
    task_(work_, number);
    unfinished_.fetch_sub(1, std::memory_order_release);
  }

  void work_for_ever(int64_t thread) {
    uint32_t seen = 0;
    for (;;) {
      seen = wait_for_call(seen);
      work_through(thread);
    }
  }

  // Spin, then block, until there is a call after `seen`; return its number.
  uint32_t wait_for_call(uint32_t seen) {
    using Clock = std::chrono::steady_clock;
    const auto until = Clock::now() + kSpinTime;
    for (int spins = 1;; ++spins) {
      const uint32_t now = calls_.load(std::memory_order_acquire);
      if (now != seen) return now;
      _mm_pause();
      if (spins % kSpinsPerCheck == 0 && Clock::now() > until) break;
    }
    blocked_.fetch_add(1);
    calls_.wait(seen);
    blocked_.fetch_sub(1);
    return calls_.load(std::memory_order_acquire);
  }

  const int64_t size_;
  const std::unique_ptr<Share[]> shares_;
  Task task_ = nullptr;
  const void* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> calls_{0};
  std::atomic<int> blocked_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  std::atomic<int64_t> num_threads_{0};
};

template <typename Action>
struct Finally {
  Action action;
  explicit Finally(Action a) : action(a) {}
  ~Finally() { action(); }
};

// A pool lives as long as the process, because its threads do. One that is too small stays blocked.
ThreadPool* pool = nullptr;
std::atomic<bool> is_in_use{false};

// A forked child has none of its parent's threads.
void forget_pool() {
  pool = nullptr;
  is_in_use = false;
}

}  // namespace

void parallel_for(int64_t count, int64_t num_threads, Task task, const void* work) {
  num_threads = std::min(num_threads, count);
  // A call that finds the pool in use, by another thread or by a task, runs on its own thread.
  if (num_threads < 2 || is_in_use.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < count; ++i) task(work, i);
    return;
  }
  const Finally done([] { is_in_use.store(false, std::memory_order_release); });
  if (pool == nullptr || pool->size() < num_threads) {
    [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    pool = new ThreadPool(num_threads);
  }
  pool->run(count, num_threads, task, work);
}

}  // namespace streamingllm::thread_pool

// Set the number of OpenMP's threads for the calling thread only; return the number before.
extern "C" int streamingllm_use_threads(int count) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(count);
  return before;
}
