// Threads of the OpenMP runtime that torch has loaded on Linux, of the standard library elsewhere. The one file that
// knows.
#include "threads.h"

#include <atomic>
#include <vector>

#ifdef __linux__
#include <dlfcn.h>
#include <link.h>

#include <string>
#else
#include <system_error>
#include <thread>
#endif

namespace labeldrop {
namespace {

// The work of all threads, and the least of what they have found.
class Work {
 public:
  Work(int64_t (*work)(const void*, int, int), const void* context) : work_(work), context_(context) {}

  void run(int thread, int threads) {
    const int64_t found = work_(context_, thread, threads);
    int64_t least = least_;
    while (found < least && !least_.compare_exchange_weak(least, found)) {
    }
  }
  int64_t least() const { return least_; }

 private:
  int64_t (*work_)(const void*, int, int);
  const void* context_;
  std::atomic<int64_t> least_{kNothing};
};

#ifdef __linux__

// What a compiler makes of `#pragma omp parallel`. GCC's runtime has these functions; those of LLVM and Intel have them
// too, for its sake. They are looked up, not linked: a wheel of torch brings its own copy under a name of its own,
// which some wheels show to everybody and others (arm64) to torch alone, and a second runtime would bring a second pool
// of threads into the process.
struct OpenMp {
  void (*parallel)(void (*run)(void*), void* data, unsigned threads, unsigned flags);
  int (*thread)();
  int (*threads)();

  explicit OpenMp(void* library)
      : parallel(reinterpret_cast<decltype(parallel)>(dlsym(library, "GOMP_parallel"))),
        thread(reinterpret_cast<decltype(thread)>(dlsym(library, "omp_get_thread_num"))),
        threads(reinterpret_cast<decltype(threads)>(dlsym(library, "omp_get_num_threads"))) {}

  bool complete() const { return parallel && thread && threads; }
};

// The runtime that everybody sees, or else the first of those that are loaded. It stays loaded: so does torch.
OpenMp find_openmp() {
  OpenMp found(RTLD_DEFAULT);
  std::vector<std::string> names;
  const auto add = [](dl_phdr_info* info, size_t, void* names) {
    const std::string path = info->dlpi_name, name = path.substr(path.rfind('/') + 1);
    for (const char* runtime : {"libgomp", "libomp", "libiomp"}) {
      if (name.rfind(runtime, 0) == 0) static_cast<std::vector<std::string>*>(names)->push_back(path);
    }
    return 0;
  };
  if (!found.complete()) dl_iterate_phdr(add, &names);
  for (const std::string& name : names) {
    void* library = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (library != nullptr) found = OpenMp(library);
    if (found.complete()) break;
  }
  return found;
}

// By this thread alone in a process without such a runtime, as a torch that was built without one.
void run_threads(Work& work, int threads) {
  static const OpenMp openmp = find_openmp();
  if (!openmp.complete()) return work.run(0, 1);
  const auto run = [](void* work) { static_cast<Work*>(work)->run(openmp.thread(), openmp.threads()); };
  openmp.parallel(run, &work, static_cast<unsigned>(threads), 0);
}

#else

void run_threads(Work& work, int threads) {
  std::vector<std::thread> others;
  int own = 1;  // shares that have no other thread: the first, and all those for which the system has none
  try {
    for (; own < threads; ++own) others.emplace_back([&work, own, threads] { work.run(own, threads); });
  } catch (const std::system_error&) {
  }
  work.run(0, threads);
  for (; own < threads; ++own) work.run(own, threads);
  for (std::thread& other : others) other.join();
}

#endif

}  // namespace

int64_t least_of_threads(int threads, int64_t (*work)(const void*, int, int), const void* context) {
  Work shared(work, context);
  if (threads <= 1) {
    shared.run(0, 1);
  } else {
    run_threads(shared, threads);
  }
  return shared.least();
}

}  // namespace labeldrop
