// SPDX-License-Identifier: Apache-2.0
// Divergent control flow: lanes of a wave take different ways and meet again.
#include "device.h"

#ifdef __AMDGCN__
#define FUNCTION __attribute__((device, noinline)) static
#else
#define FUNCTION __attribute__((noinline)) static
#endif

DEVICE u32 nested(u32 x, u32 y, u32 z) {
  u32 result = z;
  if (x & 1) {
    result += 3;
    if (y & 2) {
      result *= 5;
      if (z & 4) result ^= x;
      else result -= y;
    } else if ((x ^ y) & 8) {
      result = ~result;
    }
    result += y;
  } else {
    for (u32 i = 0; i < (y & 7); i++) result = (result << 1) ^ i;
  }
  return result;
}
DEVICE u32 collatz(u32 x, u32 limit) {
  u32 steps = 0;
  for (x = (x & 0xffff) | 1; steps < limit; steps++) {
    if (x == 1) break;
    if (x & 1) {
      x = 3 * x + 1;
      continue;
    }
    x >>= 1;
  }
  return (steps << 16) ^ x;
}
DEVICE u32 choice(u32 x, u32 y, u32 z) {
  switch (x % 11) {
    case 0: return y + 1;
    case 1: return y * 3;
    case 2: y ^= z; [[fallthrough]];
    case 3: return y - z;
    case 4: return ~z;
    case 5: return y / (z | 1);
    case 7: return y << (z & 31);
    case 9: z += y; break;
    default: return 42;
  }
  return z * 7;
}
DEVICE u32 loops(u32 x, u32 y) {
  u32 sum = 0;
  for (u32 i = 0; i < (x & 15); i++) {
    for (u32 j = i; j < (y & 15); j++) {
      if (((i * j) ^ x) % 7 == 3) continue;
      if (sum > 4000) goto done;
      sum += i * 16 + j;
    }
    if (sum & 1) break;
  }
done:
  return sum;
}
FUNCTION u32 called(u32 x, u32 depth) {
  u32 local[6];
  for (u32 i = 0; i < 6; i++) local[i] = x * (i + depth);
  for (u32 i = 0; i < (x & 7); i++) local[(x + i) % 6] += local[i % 6] >> 3;
  u32 sum = depth;
  for (u32 i = 0; i < 6; i++) sum = sum * 33 + local[i];
  return sum;
}
FUNCTION u32 recursive(u32 x, u32 depth) {
  if (depth == 0 || x < 2) return x;
  return recursive(x / 2, depth - 1) + 3 * recursive(x / 3, depth - 1);
}
DEVICE u32 calls(u32 x, u32 y) {
  if (x & 1) return called(y, 2) + called(x, 1);
  return x & 2 ? recursive(y & 0xfff, 4) : 1;
}
using Function = u32 (*)(u32, u32);
DEVICE u32 through_pointer(u32 x, u32 y, u32 z) {
  Function volatile function = z & 1 ? called : recursive;
  return function(x & 0xffff, y & 3);
}
DEVICE u32 early(u32 x, u32 y) {
  if (x < y) return 1;
  u32 count = 0;
  while (true) {
    if (x == 0) return count;
    x &= x - 1;
    count += 2;
    if (count > (y & 31)) return count | 0x100;
  }
}

ITEM(nested_branches, u32, u32, nested(x, y, z))
ITEM(loop_with_break, u32, u32, collatz(x, y & 63))
ITEM(switch_cases, u32, u32, choice(x, y, z))
ITEM(nested_loops, u32, u32, loops(x, y))
ITEM(function_calls, u32, u32, calls(x, y))
ITEM(function_pointers, u32, u32, through_pointer(x, y, z))
ITEM(early_returns, u32, u32, early(x, y))
ITEM(logic, u32, u32, (x > y && y > z) || (x % 3 == 0 && z % 2) ? x - z : y)

// A barrier that every wave reaches though its lanes went different ways before.
KERNEL(256) barrier_after_divergence(const u32 *input, u32 *output) {
  SHARED u32 line[256];
  THREADS {
    u32 x = input[global_id()];
    line[thread_id()] = x % 4 == 3 ? collatz(x, 40) : x % 4 == 1 ? x * 3 : 17;
  }
  block_sync();
  THREADS {
    u32 sum = 0;
    for (u32 i = 0; i < thread_id() % 32; i++) sum += line[(thread_id() + i) & 255];
    output[global_id()] = sum;
  }
  block_sync();
  THREADS {
    if (thread_id() & 64) line[thread_id()] += output[global_id() - 64];
  }
  block_sync();
  THREADS { output[global_id()] += line[255 - thread_id()]; }
}
