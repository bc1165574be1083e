// The processor's caches.
#pragma once

#include <cstdint>

namespace labeldrop {

// Bytes of the largest cache that a core reaches; 32 MiB where the processor does not say. Compiled once.
int64_t last_level_cache();

}  // namespace labeldrop
