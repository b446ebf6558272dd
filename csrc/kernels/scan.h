// SPDX-License-Identifier: Apache-2.0
// Prefix sums over the threads of a block.
#pragma once

#include "device.h"

// Sets sums[t], in shared memory, to the sum of the values of threads 0 .. t. Every thread may read
// all of it afterwards.
template <u32 kThreads>
DEVICE void block_scan(i32 value, i32 (&sums)[kThreads]) {
  const u32 thread = thread_id();
  block_sync();  // what the array held before may still be being read
  sums[thread] = value;
  for (u32 reach = 1; reach < kThreads; reach *= 2) {
    block_sync();
    if (thread >= reach) value += sums[thread - reach];
    block_sync();
    sums[thread] = value;
  }
  block_sync();
}
