// What every GPU since compute capability 5.0 can launch without being asked for more.
#pragma once

#include <climits>

#include "cuda_emulator.h"

namespace cuda_emulator {

constexpr size_t kMaxThreads = 1024;        // of a block
constexpr size_t kSharedBytes = 48 * 1024;  // of a block

// Why a GPU would refuse the launch, or null.
inline const char* objection(const Launch& launch) {
  const uint64_t threads = static_cast<uint64_t>(launch.block.x) * launch.block.y * launch.block.z;
  if (threads == 0 || threads > kMaxThreads) return "a block has 1 to 1024 threads";
  if (launch.block.z > 64) return "a block has 64 threads at most in z";
  if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0) return "the grid has no blocks";
  if (launch.grid.x > INT_MAX) return "a grid has 2^31 - 1 blocks at most in x";
  if (launch.grid.y > 65535 || launch.grid.z > 65535) return "a grid has 65535 blocks at most in y and z";
  if (launch.shared_bytes > kSharedBytes) return "a block has 48 KiB of shared memory";
  return nullptr;
}

}  // namespace cuda_emulator
