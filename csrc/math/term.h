// What a formula says about one class of a pixel.
#pragma once

#include "portable.h"

namespace labeldrop {

// V is one number, or a vector of them for as many pixels.
template <class V, int Channels>
struct Term {
  V loss;
  V gradient[Channels];  // by each of the class's channels
};

}  // namespace labeldrop
