// The scheduler of the emulated device: see cuda_runtime.h.
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

using Listener = void (*)(const void* kernel, const void* arguments, size_t bytes, unsigned threads, size_t shared);

namespace {

constexpr size_t kStack = 256 << 10;  // of a fiber; the lowest page is a guard
constexpr size_t kPage = 64 << 10;    // a multiple of every page size in use
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kCanary = 256;  // bytes behind a block's shared memory, that nobody may write

enum class State { ready, at_barrier, at_exchange, done };

// Fibers change places by the compiler's own setjmp: no system call, and no library that looks whether the stack is the
// same one (as the address sanitizer's longjmp does).
using Jump = void* [5];

struct Fiber {
  Jump here;
  bool started = false;
  char* stack = nullptr;
  uint3 index;
  unsigned number;  // x fastest
  State state;
  Place place;
};

struct Warp {
  uint64_t slots[2][kWarp];  // by turns: a lane may be at the next exchange before the others have read this one
  int turn = 0;
  unsigned arrived = 0;
};

Jump scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
Fiber* current;
bool in_kernel = false;  // a fiber runs
const std::function<void()>* body;
unsigned threads, live, at_barrier;
std::string failure;  // what a fiber found wrong
alignas(16) unsigned char shared[kSharedBytesOptin + kCanary];
std::map<const void*, int> allowed_shared;
std::mutex one_launch;
cudaError_t last_error = cudaSuccess;
int order = 0;
Listener listener = nullptr;
int until_failure = -1;  // calls of the runtime that succeed before one that fails; -1: none does

// What a call answers: an error also is the runtime's last one, until somebody asks for that.
cudaError_t answer(cudaError_t error) {
  if (until_failure == 0) error = cudaErrorUnknown;
  if (until_failure >= 0) --until_failure;
  return error == cudaSuccess ? error : last_error = error;
}

[[noreturn]] void leave_fiber() {
  in_kernel = false;
  __builtin_longjmp(scheduler, 1);
}

__attribute__((noinline)) void pause_fiber() {
  if (__builtin_setjmp(current->here) == 0) leave_fiber();
}

[[noreturn]] void fail(const std::string& message) {
  failure = message;
  leave_fiber();
}

std::string name(const Fiber& fiber) {
  return "thread (" + std::to_string(fiber.index.x) + ", " + std::to_string(fiber.index.y) + ", " +
         std::to_string(fiber.index.z) + ")";
}

std::string name(const Place& place) { return std::string(place.file) + ":" + std::to_string(place.line); }

void release(State from, unsigned first, unsigned end) {
  for (unsigned t = first; t < end; ++t) {
    if (fibers[t]->state == from) fibers[t]->state = State::ready;
  }
}

void release_full_barrier() {
  if (at_barrier == 0 || at_barrier < live) return;
  const Fiber* first = nullptr;
  for (unsigned t = 0; t < threads; ++t) {
    const Fiber& fiber = *fibers[t];
    if (fiber.state != State::at_barrier) continue;
    if (first == nullptr) first = &fiber;
    if (first->place != fiber.place) {
      fail("threads are at different barriers: " + name(*first) + " at " + name(first->place) + ", " + name(fiber) +
           " at " + name(fiber.place));
    }
  }
  at_barrier = 0;
  release(State::at_barrier, 0, threads);
}

// A fiber runs one thread of one block after the other, for as long as the process lives.
[[noreturn]] void run_fiber() {
  for (;;) {
    (*body)();
    current->state = State::done;
    --live;
    release_full_barrier();
    pause_fiber();
  }
}

__attribute__((noinline)) void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  if (__builtin_setjmp(scheduler) != 0) return;
  in_kernel = true;
  if (fiber.started) __builtin_longjmp(fiber.here, 1);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, run_fiber, 0);
  setcontext(&context);
}

void make_fibers(unsigned count) {
  while (fibers.size() < count) {
    void* memory = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("emulated device: no memory for a thread's stack");
    mprotect(memory, kPage, PROT_NONE);
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack = static_cast<char*>(memory) + kPage;
  }
}

// The i-th of n in the order that was asked for; 7919 is a prime larger than any n that matters here.
uint64_t pick(uint64_t i, uint64_t n) {
  switch (order) {
    case 1: return n - 1 - i;
    case 2: return n % 7919 == 0 ? i : i * 7919 % n;
    default: return i;
  }
}

[[noreturn]] void report_deadlock() {
  for (unsigned t = 0; t < threads; ++t) {
    const Fiber& fiber = *fibers[t];
    if (fiber.state == State::at_exchange) {
      throw std::runtime_error("emulated device: deadlock: " + name(fiber) + " waits at a shuffle, " +
                               name(fiber.place) + ", that not all 32 lanes of its warp reach");
    }
  }
  throw std::runtime_error("emulated device: deadlock");
}

// Runs a warp until each of its threads waits for another warp or has ended; returns whether any of them ran.
bool run_warp(unsigned warp) {
  const unsigned first = warp * kWarp, end = std::min(first + kWarp, threads);
  bool ran = false, again = true;
  while (again) {
    again = false;
    for (unsigned i = 0; i < end - first; ++i) {
      Fiber& fiber = *fibers[first + pick(i, end - first)];
      if (fiber.state != State::ready) continue;
      resume(fiber);
      if (!failure.empty()) throw std::runtime_error("emulated device: " + std::exchange(failure, {}));
      ran = again = true;
    }
  }
  return ran;
}

void run_block(size_t shared_bytes) {
  std::memset(shared, 0xFF, shared_bytes + kCanary);  // NaN, -1: not written is not 0
  warps.assign((threads + kWarp - 1) / kWarp, Warp());
  live = threads;
  at_barrier = 0;
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = *fibers[t];
    fiber.number = t;
    fiber.index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
    fiber.state = State::ready;
  }
  while (live > 0) {
    bool ran = false;
    for (unsigned w = 0; w < warps.size(); ++w) ran |= run_warp(static_cast<unsigned>(pick(w, warps.size())));
    if (!ran) report_deadlock();
  }
  for (size_t i = shared_bytes; i < shared_bytes + kCanary; ++i) {
    if (shared[i] != 0xFF) throw std::runtime_error("emulated device: a write behind the dynamic shared memory");
  }
}

bool fits(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const auto allowed = allowed_shared.find(kernel);
  const size_t bytes = allowed == allowed_shared.end() ? kSharedBytes : allowed->second;
  const uint64_t size = uint64_t{block.x} * block.y * block.z;
  return size >= 1 && block.x <= kMaxThreads && block.y <= kMaxThreads && block.z <= 64 && size <= kMaxThreads &&
         grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535 &&
         config.dynamicSmemBytes <= bytes;
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& function,
                   const std::string& arguments) {
  const std::lock_guard<std::mutex> lock(one_launch);
  if (config.numAttrs != 0) throw std::runtime_error("emulated device: launch attributes are not emulated");
  const cudaError_t error = answer(fits(config, kernel) ? cudaSuccess : cudaErrorInvalidConfiguration);
  if (error != cudaSuccess) return error;
  if (listener != nullptr) {
    const unsigned size = config.blockDim.x * config.blockDim.y * config.blockDim.z;
    listener(kernel, arguments.data(), arguments.size(), size, config.dynamicSmemBytes);
  }
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  threads = blockDim.x * blockDim.y * blockDim.z;
  body = &function;
  make_fibers(threads);
  const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  try {
    for (uint64_t i = 0; i < blocks; ++i) {
      const uint64_t b = pick(i, blocks);
      blockIdx = {static_cast<unsigned>(b % gridDim.x), static_cast<unsigned>(b / gridDim.x % gridDim.y),
                  static_cast<unsigned>(b / gridDim.x / gridDim.y)};
      run_block(config.dynamicSmemBytes);
    }
  } catch (...) {
    for (auto& fiber : fibers) fiber->started = false;  // what it was in the middle of is not gone on with
    throw;
  }
  return cudaSuccess;
}

cudaError_t allow_shared(const void* kernel, int bytes) {
  const std::lock_guard<std::mutex> lock(one_launch);
  const cudaError_t error = answer(0 <= bytes && bytes <= kSharedBytesOptin ? cudaSuccess : cudaErrorInvalidValue);
  if (error == cudaSuccess) allowed_shared[kernel] = bytes;
  return error;
}

void barrier(Place place) {
  current->state = State::at_barrier;
  current->place = place;
  ++at_barrier;
  release_full_barrier();
  if (current->state == State::at_barrier) pause_fiber();
}

unsigned lane() { return current->number % kWarp; }

const uint64_t* exchange(const void* mine, size_t bytes, unsigned mask, Place place) {
  if (mask != ~0u) fail("a shuffle without the full mask, at " + name(place));
  const unsigned first = current->number / kWarp * kWarp;
  if (first + kWarp > threads) fail("a shuffle in a warp of fewer than 32 threads, at " + name(place));
  Warp& warp = warps[current->number / kWarp];
  const int turn = warp.turn;
  std::memcpy(&warp.slots[turn][lane()], mine, bytes);
  current->state = State::at_exchange;
  current->place = place;
  if (++warp.arrived < kWarp) {
    pause_fiber();
    return warp.slots[turn];
  }
  for (unsigned t = first; t < first + kWarp; ++t) {
    if (fibers[t]->place != place) {
      fail("lanes of a warp are at different shuffles: " + name(*fibers[t]) + " at " + name(fibers[t]->place) + ", " +
           name(*current) + " at " + name(place));
    }
  }
  warp.arrived = 0;
  warp.turn = 1 - turn;
  release(State::at_exchange, first, first + kWarp);
  return warp.slots[turn];
}

unsigned char* dynamic_shared() { return shared; }

}  // namespace emulation

// What -fsanitize calls in the kernels when it has found something. libubsan would end the process.
namespace {

struct Found {  // the beginning of whatever the compiler hands over
  const char* file;
  uint32_t line, column;
};

[[noreturn]] void report(const char* what, const void* data) {
  const Found& found = *static_cast<const Found*>(data);
  const std::string message = std::string(what) + " at " + found.file + ":" + std::to_string(found.line);
  if (emulation::in_kernel) emulation::fail(message);
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}

}  // namespace

extern "C" {
void __ubsan_handle_type_mismatch_v1_abort(void* data, void*) { report("a misaligned access", data); }
void __ubsan_handle_out_of_bounds_abort(void* data, void*) { report("an index outside of an array", data); }
void __ubsan_handle_shift_out_of_bounds_abort(void* data, void*, void*) { report("a shift by too much", data); }
void __ubsan_handle_add_overflow_abort(void* data, void*, void*) { report("an overflow of +", data); }
void __ubsan_handle_sub_overflow_abort(void* data, void*, void*) { report("an overflow of -", data); }
void __ubsan_handle_mul_overflow_abort(void* data, void*, void*) { report("an overflow of *", data); }
void __ubsan_handle_negate_overflow_abort(void* data, void*) { report("an overflow of -", data); }
void __ubsan_handle_divrem_overflow_abort(void* data, void*, void*) { report("a division by 0", data); }
}

cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorUnknown: break;
  }
  return "unknown error";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return emulation::answer(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;  // what the runtime says where no driver is installed
  return emulation::answer(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? emulation::kMultiprocessors : emulation::kSharedBytesOptin;
  return emulation::answer(cudaSuccess);
}

// The order in which blocks, warps and lanes get their turn: 0 ascending, 1 descending, 2 mixed. A kernel whose result
// depends on it misses a barrier.
extern "C" __attribute__((visibility("default"))) void emulation_order(int order) {
  const std::lock_guard<std::mutex> lock(emulation::one_launch);
  emulation::order = order;
}

// Lets the call of the runtime fail that comes after so many others; -1: none.
extern "C" __attribute__((visibility("default"))) void emulation_fail_after(int calls) {
  const std::lock_guard<std::mutex> lock(emulation::one_launch);
  emulation::until_failure = calls;
}

// What cudaGetLastError would say; it stays.
extern "C" __attribute__((visibility("default"))) int emulation_last_error() { return emulation::last_error; }

// Calls back at every launch, before the kernel runs; null: nobody.
extern "C" __attribute__((visibility("default"))) void emulation_listen(emulation::Listener listener) {
  const std::lock_guard<std::mutex> lock(emulation::one_launch);
  emulation::listener = listener;
}
