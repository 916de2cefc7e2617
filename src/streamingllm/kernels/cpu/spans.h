// Columns of one step cut into spans for threads, and the merge of the spans' results.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace streamingllm {

// The columns of all groups laid end to end, cut into runs of equal length.
//
// What a run has of a group is a span; spans are numbered group + run, which no two share because
// each run begins where the one before has ended.
class Spans {
 public:
  Spans(int64_t num_groups, int64_t num_runs) : ends_(num_groups), num_runs_(num_runs) {}

  void set_columns(int64_t group, int64_t columns) {
    ends_[group] = columns + (group > 0 ? ends_[group - 1] : 0);
  }
  int64_t count() const { return static_cast<int64_t>(ends_.size()) + num_runs_ - 1; }

  // Call visit(group, first column, last column, span) for all that a run has.
  template <typename Visit>
  void of_run(int64_t run, const Visit& visit) const {
    const int64_t begin = cut(run), end = cut(run + 1);
    int64_t g = std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin();
    for (; g < static_cast<int64_t>(ends_.size()) && start(g) < end; ++g)
      visit(g, std::max(begin - start(g), int64_t{0}), std::min(end, ends_[g]) - start(g),
            g + run);
  }

  // Call visit(span) for all that was done of a group.
  template <typename Visit>
  void of_group(int64_t group, const Visit& visit) const {
    for (int64_t r = 0; r < num_runs_; ++r)
      if (cut(r) < ends_[group] && cut(r + 1) > start(group)) visit(group + r);
  }

 private:
  int64_t start(int64_t group) const { return group > 0 ? ends_[group - 1] : 0; }
  int64_t cut(int64_t run) const { return run * ends_.back() / num_runs_; }

  std::vector<int64_t> ends_;
  int64_t num_runs_;
};

// Softmaxes that are not finished, one for each span, and how they become one.
class Partials {
 public:
  Partials(int64_t count, int64_t num_queries, int64_t value_dim)
      : num_queries_(num_queries), value_dim_(value_dim) {
    // Of the thread that splits the work: those that do it write through the pointer.
    static thread_local std::vector<float> kept;
    kept.resize(count * num_queries * (2 + value_dim));
    floats_ = kept.data();
  }

  Partial at(int64_t span) const {
    float* p = floats_ + span * num_queries_ * (2 + value_dim_);
    return {p, p + num_queries_, p + 2 * num_queries_};
  }

  // out [value_dim] of one query; `learned` is null, or a score that has no value.
  void merge(const Spans& spans, int64_t group, int64_t query, const float* learned,
             float* out) const {
    float highest = learned ? *learned : -INFINITY;
    spans.of_group(group,
                   [&](int64_t i) { highest = std::max(highest, at(i).maximum[query]); });
    float total = learned ? std::exp(*learned - highest) : 0.0f;
    std::fill(out, out + value_dim_, 0.0f);
    spans.of_group(group, [&](int64_t i) {
      const Partial part = at(i);
      const float share = std::exp(part.maximum[query] - highest);
      total += share * part.total[query];
      const float* from = part.out + query * value_dim_;
      for (int64_t d = 0; d < value_dim_; ++d) out[d] += share * from[d];
    });
    for (int64_t d = 0; d < value_dim_; ++d) out[d] /= total;
  }

 private:
  int64_t num_queries_, value_dim_;
  float* floats_;
};

}  // namespace streamingllm
