// Memory of the kernels. Nothing of the standard library's containers: files that are compiled once per instruction set
// must not bring functions that other files have as well, since a linker keeps one of them for all.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

namespace labeldrop {
namespace {

// Zeroed memory from a cache line on; null where there is none left.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) {
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64 + 64;
    data_ = static_cast<T*>(::operator new(bytes, kCacheLine, std::nothrow));
    if (data_ != nullptr) memset(static_cast<void*>(data_), 0, bytes);
  }
  ~Buffer() { ::operator delete(data_, kCacheLine); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return data_; }

 private:
  static constexpr std::align_val_t kCacheLine{64};
  T* data_ = nullptr;
};

}  // namespace
}  // namespace labeldrop
