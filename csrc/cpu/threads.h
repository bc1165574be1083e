// Work that is shared out among threads.
#pragma once

#include <cstdint>

#include "operators.h"

namespace labeldrop {

// The least of work(context, thread, threads) over the threads 0, 1, ...; there may be fewer threads than asked for.
// Compiled once, unlike what includes it: what it takes from the standard library has no instruction set of its own.
int64_t least_of_threads(int threads, int64_t (*work)(const void* context, int thread, int threads),
                         const void* context);

namespace {

// What a share finds where there is nothing to complain about.
constexpr int64_t kNothing = INT64_MAX;

// Calls work(begin, end) for shares of `items` items. It returns the first invalid pixel of its share, kNothing or
// kOutOfMemory; so does this, with kValid for kNothing. Shares are contiguous, so that each thread reads and writes
// memory in order.
template <class Work>
int64_t share_out(int64_t items, int threads, const Work& work) {
  struct Context {
    int64_t items;
    const Work& work;
  };
  const Context context{items, work};
  const auto run_share = [](const void* context, int thread, int threads) -> int64_t {
    const auto& [items, work] = *static_cast<const Context*>(context);
    return work(items * thread / threads, items * (thread + 1) / threads);
  };
  const int64_t least = least_of_threads(threads, run_share, &context);
  return least == kNothing ? kValid : least;
}

}  // namespace
}  // namespace labeldrop
