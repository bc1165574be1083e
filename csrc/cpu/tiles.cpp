// A tile's way in and out by itself, for tests; compiled once per instruction set (LABELDROP_ISA).
#include "tiles.h"

#include "block_io.h"
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {

void tiles(const TilesArguments& a) {
  with_floats(a.type, [&](auto real, auto storage) -> int64_t {
    using Real = decltype(real);
    using Storage = decltype(storage);
    Real* values = static_cast<Real*>(a.values);
    if (a.load) {
      load_tile(values, a.pitch, static_cast<const Storage*>(a.memory), a.channels, a.channel_stride, a.pixel_stride,
                a.count);
    } else {
      store_tile(values, a.pitch, static_cast<Storage*>(a.memory), a.channels, a.channel_stride, a.pixel_stride,
                 a.count, a.streaming);
      if (a.streaming) end_stream();
    }
    return 0;
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
