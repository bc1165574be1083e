// float16 and bfloat16 as bit patterns: conversions that are branch-free on the CPU.
#pragma once

#include "portable.h"

namespace labeldrop {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// From and to the bits of a half type, in the low half of each word. V is float, or a vector of them.
template <class V>
LABELDROP_INLINE V bfloat16_to_reals(Unsigned<V> bits) {
  return bit_cast<V>(bits << 16);
}

template <class V>
LABELDROP_INLINE V float16_to_reals(Unsigned<V> bits) {
  using Integer = typename IntegerOf<V>::type;
  const Unsigned<V> sign = (bits & 0x8000u) << 16;
  const Unsigned<V> magnitude = (bits & 0x7fffu) << 13;
  // Exponent and mantissa are in float's places; the bias differs by 112. A product also gets subnormals right.
  const Unsigned<V> finite = bit_cast<Unsigned<V>>(bit_cast<V>(magnitude) * 0x1p112f);
  const Unsigned<V> special = magnitude | 0x7f800000u;  // infinity and NaN have the largest exponent in both
  return bit_cast<V>(sign | (bit_cast<Integer>(magnitude) >= 0x0f800000 ? special : finite));
}

// Both round to the nearest, ties to even; NaN stays a (quiet) NaN.
template <class V>
LABELDROP_INLINE Unsigned<V> bfloat16_bits(V x) {
  const Unsigned<V> bits = bit_cast<Unsigned<V>>(x);
  const Unsigned<V> rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Unsigned<V> not_a_number = (bits >> 16) | 0x40u;
  return x == x ? rounded : not_a_number;
}

template <class V>
LABELDROP_INLINE Unsigned<V> float16_bits(V x) {
  using Integer = typename IntegerOf<V>::type;
  const Unsigned<V> bits = bit_cast<Unsigned<V>>(x), zero{};
  const Unsigned<V> sign = (bits >> 16) & 0x8000u;
  const Unsigned<V> magnitude = bits & 0x7fffffffu;
  const Integer size = bit_cast<Integer>(magnitude);
  // normal results: shift out 13 bits with rounding, change the bias from 127 to 15
  const Unsigned<V> normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // subnormal results (|x| < 2^-14): adding 1/2 lets the float adder round to multiples of 2^-24, the smallest one
  const Unsigned<V> subnormal = bit_cast<Unsigned<V>>(bit_cast<V>(magnitude) + 0.5f) - 0x3f000000u;
  Unsigned<V> result = size < (113 << 23) ? subnormal : normal;
  result = size >= 0x477ff000 ? zero + 0x7c00u : result;  // from 65520 on: infinity
  result = size > 0x7f800000 ? zero + 0x7e00u : result;   // NaN
  return sign | result;
}

LABELDROP_INLINE float to_float(BFloat16 x) { return bfloat16_to_reals<float>(x.bits); }
LABELDROP_INLINE float to_float(Float16 x) { return float16_to_reals<float>(x.bits); }
LABELDROP_INLINE BFloat16 to_bfloat16(float x) { return {static_cast<uint16_t>(bfloat16_bits(x))}; }
LABELDROP_INLINE Float16 to_float16(float x) { return {static_cast<uint16_t>(float16_bits(x))}; }

}  // namespace labeldrop
