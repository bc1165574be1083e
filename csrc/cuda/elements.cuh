// Element types as they lie in memory, and the numbers that kernels compute with: half types pass through 32-bit words
// of two values, by the device's own conversions.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <type_traits>

#include "../math/half.h"
#include "launch.cuh"

namespace labeldrop::cuda {

// Element<Storage>: Real, what it is computed in; load and store of one; unpack and pack of a 32-bit word of kPerWord.
template <class Storage>
struct Element;

template <>
struct Element<double> {
  using Real = double;
  static __device__ __forceinline__ double load(double x) { return x; }
  static __device__ __forceinline__ double store(double x) { return x; }
};

template <>
struct Element<float> {
  using Real = float;
  static constexpr int kPerWord = 1;
  static constexpr uint32_t kMinusInfinity = 0xff800000u;
  static __device__ __forceinline__ float load(float x) { return x; }
  static __device__ __forceinline__ float store(float x) { return x; }
  static __device__ __forceinline__ void unpack(uint32_t word, float* x) { x[0] = bit_cast<float>(word); }
  static __device__ __forceinline__ uint32_t pack(const float* x) { return bit_cast<uint32_t>(x[0]); }
};

template <>
struct Element<BFloat16> {
  using Real = float;
  static constexpr int kPerWord = 2;
  static constexpr uint32_t kMinusInfinity = 0xff80ff80u;
  static __device__ __forceinline__ float load(BFloat16 x) { return to_float(x); }
  static __device__ __forceinline__ BFloat16 store(float x) {
#ifdef __CUDA_ARCH__
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    return to_bfloat16(x);
#endif
  }
  static __device__ __forceinline__ void unpack(uint32_t word, float* x) {
    x[0] = bit_cast<float>(word << 16);
    x[1] = bit_cast<float>(word & 0xffff0000u);
  }
  static __device__ __forceinline__ uint32_t pack(const float* x) {
#ifdef __CUDA_ARCH__
    return bit_cast<uint32_t>(__floats2bfloat162_rn(x[0], x[1]));
#else
    return store(x[0]).bits | static_cast<uint32_t>(store(x[1]).bits) << 16;
#endif
  }
};

template <>
struct Element<Float16> {
  using Real = float;
  static constexpr int kPerWord = 2;
  static constexpr uint32_t kMinusInfinity = 0xfc00fc00u;
  static __device__ __forceinline__ float load(Float16 x) {
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(x.bits));
#else
    return to_float(x);
#endif
  }
  static __device__ __forceinline__ Float16 store(float x) {
#ifdef __CUDA_ARCH__
    return {__half_as_ushort(__float2half_rn(x))};
#else
    return to_float16(x);
#endif
  }
  static __device__ __forceinline__ void unpack(uint32_t word, float* x) {
    x[0] = load({static_cast<uint16_t>(word)});
    x[1] = load({static_cast<uint16_t>(word >> 16)});
  }
  static __device__ __forceinline__ uint32_t pack(const float* x) {
#ifdef __CUDA_ARCH__
    return bit_cast<uint32_t>(__floats2half2_rn(x[0], x[1]));
#else
    return store(x[0]).bits | static_cast<uint32_t>(store(x[1]).bits) << 16;
#endif
  }
};

template <class Storage>
using RealOf = typename Element<Storage>::Real;

// What one access of N values reads or writes, without looking at them: 32-bit words, or the one value.
template <class Storage, int N>
struct RawOf {
  using type = Vector<uint32_t, static_cast<int>(N * sizeof(Storage) / 4)>;
};
template <class Storage>
struct RawOf<Storage, 1> {
  using type = Storage;
};
template <class Storage, int N>
using Raw = typename RawOf<Storage, N>::type;

template <class Storage, int N>
__device__ __forceinline__ void unpack(const Raw<Storage, N>& raw, RealOf<Storage> (&x)[N]) {
  if constexpr (N == 1) {
    x[0] = Element<Storage>::load(raw);
  } else {
    constexpr int kPerWord = Element<Storage>::kPerWord;
#pragma unroll
    for (int w = 0; w < N / kPerWord; ++w) Element<Storage>::unpack(raw.values[w], x + w * kPerWord);
  }
}

template <class Storage, int N>
__device__ __forceinline__ Raw<Storage, N> pack(const RealOf<Storage> (&x)[N]) {
  if constexpr (N == 1) {
    return Element<Storage>::store(x[0]);
  } else {
    constexpr int kPerWord = Element<Storage>::kPerWord;
    Raw<Storage, N> raw;
#pragma unroll
    for (int w = 0; w < N / kPerWord; ++w) raw.values[w] = Element<Storage>::pack(x + w * kPerWord);
    return raw;
  }
}

template <class Storage, int N>
__device__ __forceinline__ Raw<Storage, N> minus_infinity() {
  constexpr uint32_t kWord = Element<Storage>::kMinusInfinity;
  if constexpr (N == 1) {
    return bit_cast<Storage>(static_cast<std::conditional_t<sizeof(Storage) == 2, uint16_t, uint32_t>>(kWord));
  } else {
    Raw<Storage, N> raw;
    for (uint32_t& word : raw.values) word = kWord;
    return raw;
  }
}

// N neighbouring values from `from`, which is aligned to them all or, beyond 16 bytes, to 16 bytes.
template <class Value, int N>
__device__ __forceinline__ void load_values(const Value* from, Value (&values)[N]) {
  constexpr int kWidest = static_cast<int>(kVectorBytes / sizeof(Value));
  constexpr int kStep = N < kWidest ? N : kWidest;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    const Vector<Value, kStep> part = *reinterpret_cast<const Vector<Value, kStep>*>(from + i);
#pragma unroll
    for (int j = 0; j < kStep; ++j) values[i + j] = part.values[j];
  }
}

template <class Value, int N>
__device__ __forceinline__ void store_values(Value* to, const Value (&values)[N]) {
  constexpr int kWidest = static_cast<int>(kVectorBytes / sizeof(Value));
  constexpr int kStep = N < kWidest ? N : kWidest;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    Vector<Value, kStep> part;
#pragma unroll
    for (int j = 0; j < kStep; ++j) part.values[j] = values[i + j];
    *reinterpret_cast<Vector<Value, kStep>*>(to + i) = part;
  }
}

}  // namespace labeldrop::cuda
