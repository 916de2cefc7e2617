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

constexpr auto kAwake = std::chrono::microseconds(500);  // more than lies between two steps
constexpr int kTurnsPerLook = 256;  // at the clock, or for others who need the processor

// The numbers [first, last) that a thread is to do; others take from its end.
struct alignas(64) Share {
  std::atomic<uint64_t> packed{0};

  static uint64_t pack(uint64_t first, uint64_t last) { return first << 32 | last; }

  // Take one number, or return -1.
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
      std::thread([this, thread] { stand_by(thread); }).detach();
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
    if (asleep_.load() > 0) calls_.notify_all();
    work_through(0);
    for (int turn = 1; unfinished_.load(std::memory_order_acquire) > 0; ++turn)
      turn % kTurnsPerLook == 0 ? std::this_thread::yield() : _mm_pause();
  }

 private:
  // Do own numbers, then those of others. To have taken one is to know that `task_` and `work_`
  // are of the call it belongs to, for the call cannot end before the number is done.
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

  void stand_by(int64_t thread) {
    uint32_t seen = 0;
    for (;;) {
      seen = wait_for_call(seen);
      work_through(thread);
    }
  }

  // Return the number of the last call once it is not `seen`.
  uint32_t wait_for_call(uint32_t seen) {
    using Clock = std::chrono::steady_clock;
    const auto until = Clock::now() + kAwake;
    for (int turn = 1;; ++turn) {
      const uint32_t now = calls_.load(std::memory_order_acquire);
      if (now != seen) return now;
      _mm_pause();
      if (turn % kTurnsPerLook == 0 && Clock::now() > until) break;
    }
    asleep_.fetch_add(1);
    calls_.wait(seen);
    asleep_.fetch_sub(1);
    return calls_.load(std::memory_order_acquire);
  }

  const int64_t size_;
  const std::unique_ptr<Share[]> shares_;
  Task task_ = nullptr;
  const void* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> calls_{0};
  std::atomic<int> asleep_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  std::atomic<int64_t> num_threads_{0};
};

template <typename Action>
struct Finally {
  Action action;
  explicit Finally(Action a) : action(a) {}
  ~Finally() { action(); }
};

// Teams live as long as the process, for their threads do; one that is too small is left asleep.
ThreadPool* pool = nullptr;
std::atomic<bool> at_work{false};

// The threads of a process that forks are not in its child.
void forget() {
  pool = nullptr;
  at_work = false;
}

}  // namespace

void parallel_for(int64_t count, int64_t num_threads, Task task, const void* work) {
  num_threads = std::min(num_threads, count);
  // Who finds the pool at work, for another thread or for itself, works alone.
  if (num_threads < 2 || at_work.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < count; ++i) task(work, i);
    return;
  }
  const Finally done([] { at_work.store(false, std::memory_order_release); });
  if (pool == nullptr || pool->size() < num_threads) {
    [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, forget);
    pool = new ThreadPool(num_threads);
  }
  pool->run(count, num_threads, task, work);
}

}  // namespace streamingllm::thread_pool

// Set how many of OpenMP's threads the calling thread may use, and no other; return the last number.
extern "C" int streamingllm_use_threads(int count) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(count);
  return before;
}
