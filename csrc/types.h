// Codes by which Python names a tensor's element type (labeldrop_bench/ops/_native.py holds the same list).
#pragma once

#include <cstdint>

namespace labeldrop {

enum class Float : int { f32 = 0, bf16 = 1, f16 = 2, f64 = 3 };
enum class Integer : int { u8 = 0, i16 = 1, i32 = 2, i64 = 3 };

// Whether an integer type can hold a value at all: a pixel of a uint8 target never equals ignore_index = -100.
inline bool representable(Integer type, int64_t value) {
  switch (type) {
    case Integer::u8: return value >= 0 && value <= UINT8_MAX;
    case Integer::i16: return value >= INT16_MIN && value <= INT16_MAX;
    case Integer::i32: return value >= INT32_MIN && value <= INT32_MAX;
    case Integer::i64: return true;
  }
  return false;
}

}  // namespace labeldrop
