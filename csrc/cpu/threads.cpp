// Threads of OpenMP where torch brings its runtime, threads of the standard library elsewhere. The one file that knows.
#include "threads.h"

#ifdef _OPENMP
#include <omp.h>
#else
#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>
#endif

namespace labeldrop {

#ifdef _OPENMP

int64_t least_of_threads(int threads, int64_t (*work)(const void*, int, int), const void* context) {
  int64_t least = kNothing;
#pragma omp parallel num_threads(threads) reduction(min : least)
  least = work(context, omp_get_thread_num(), omp_get_num_threads());
  return least;
}

#else

int64_t least_of_threads(int threads, int64_t (*work)(const void*, int, int), const void* context) {
  std::vector<int64_t> found(threads, kNothing);
  std::vector<std::thread> others;
  const auto run = [&](int thread) { found[thread] = work(context, thread, threads); };
  int own = 1;  // shares that have no other thread: the first, and all those for which the system has none
  try {
    for (; own < threads; ++own) others.emplace_back(run, own);
  } catch (const std::system_error&) {
  }
  run(0);
  for (; own < threads; ++own) run(own);
  for (std::thread& other : others) other.join();
  return *std::min_element(found.begin(), found.end());
}

#endif

}  // namespace labeldrop
