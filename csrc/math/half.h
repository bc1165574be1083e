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

LABELDROP_INLINE float to_float(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

LABELDROP_INLINE float to_float(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  // Exponent and mantissa are in float's places; the bias differs by 112. A product also gets subnormals right.
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;  // infinity and NaN have the largest exponent in both
  return bit_cast<float>(sign | (magnitude >= 0x0f800000u ? special : finite));
}

// Both round to the nearest, ties to even; NaN stays a (quiet) NaN.
LABELDROP_INLINE BFloat16 to_bfloat16(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40u : rounded)};
}

LABELDROP_INLINE Float16 to_float16(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // normal results: shift out 13 bits with rounding, change the bias from 127 to 15
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // subnormal results (|x| < 2^-14): adding 1/2 lets the float adder round to multiples of 2^-24, the smallest one
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;  // from 65520 on: infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;   // NaN
  return {static_cast<uint16_t>(sign | result)};
}

}  // namespace labeldrop
