// Tiles: a block of pixels as rows of floats, one row a channel, that stay in the first-level cache. Element types and
// memory layouts are dealt with on the way in and out, in tiles.cpp alone. Included by files that are compiled per
// instruction set.
#pragma once

#include "../arguments.h"
#include "cache.h"
#include "lanes.h"

namespace labeldrop {

// ---- tiles.cpp ----
// Channel c of pixel i is at values[c * pitch + i] in the tile, and in memory at c * channel_stride + i * pixel_stride.
// One of the strides is 1. Rows of the tile have room for whole vectors. Streaming: past the caches, where `can_stream`
// says so; end_stream comes after the last tile.
namespace LABELDROP_ISA {

void read_tile(float* values, int64_t pitch, const void* from, Float type, int64_t channels, int64_t channel_stride,
               int64_t pixel_stride, int count);
void read_tile(double* values, int64_t pitch, const void* from, Float type, int64_t channels, int64_t channel_stride,
               int64_t pixel_stride, int count);
void write_tile(const float* values, int64_t pitch, void* to, Float type, int64_t channels, int64_t channel_stride,
                int64_t pixel_stride, int count, bool streaming);
void write_tile(const double* values, int64_t pitch, void* to, Float type, int64_t channels, int64_t channel_stride,
                int64_t pixel_stride, int count, bool streaming);

}  // namespace LABELDROP_ISA

namespace {

constexpr int64_t bytes_of(Float type) { return type == Float::f64 ? 8 : type == Float::f32 ? 4 : 2; }

// Whether to stream a tensor of `bytes` bytes whose rows start at `rows` and `row_bytes` apart: if it is larger than
// the last-level cache, so that it would be gone from there anyway, and rows start at cache lines. What is streamed is
// not read first, which otherwise a third of the memory's time goes to.
LABELDROP_INLINE bool can_stream(const void* rows, int64_t row_bytes, int64_t bytes) {
  return bytes > last_level_cache() && reinterpret_cast<uintptr_t>(rows) % 64 == 0 && row_bytes % 64 == 0;
}

// What this thread has streamed is in memory before what it stores from now on.
LABELDROP_INLINE void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace
}  // namespace labeldrop
