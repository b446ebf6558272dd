// SPDX-License-Identifier: Apache-2.0
// csrc/kernels/sm90.h on the CPU.
#pragma once

#include "device.h"

DEVICE u32 grid_size_y() { return machine::index().grid[1]; }

DEVICE void wave_sync() {
  together<u32>(0u, [](const u32*, u32*) {});
}
DEVICE u32 permute_bytes(u32 x, u32 order) {
  u32 result = 0;
  for (u32 i = 0; i < 4; ++i) result |= (x >> (order >> i * 4 & 3) * 8 & 0xff) << i * 8;
  return result;
}

// Four waves do this together.
template <u32 registers>
DEVICE void take_registers() {
  machine::meet(8 + wave_id() / 4, 4 * kWaveSize);
}
template <u32 registers>
DEVICE void leave_registers() {
  machine::meet(8 + wave_id() / 4, 4 * kWaveSize);
}

template <u32 id, u32 threads>
DEVICE void group_sync() {
  static_assert(id > 0 && id < 8);
  machine::meet(id, threads);
}

DEVICE void start_next_kernel() {}
DEVICE void wait_for_last_kernel() {}

using machine::Barrier;

DEVICE void init(Barrier& barrier, u32 arrivals) {
  barrier = {static_cast<int>(arrivals), static_cast<int>(arrivals), 0, 0};
}
DEVICE void publish_barriers() {}
DEVICE void arrive(Barrier& barrier) { machine::arrive_at(barrier, 0); }
DEVICE void arrive_and_expect(Barrier& barrier, u32 bytes) { machine::arrive_at(barrier, bytes); }
DEVICE void wait(Barrier& barrier, u32 parity) { machine::wait_for(barrier, parity); }

DEVICE void prefetch_map(const void*) {}
DEVICE void copy_lines(void* to, const void* map, i32 line, Barrier& barrier) {
  machine::copy_box(static_cast<char*>(to), *static_cast<const machine::Map*>(map), line, barrier);
}
DEVICE void order_writes_before_copies() {}

// Of the 16 x 8 of d, the 16 x 16 of a and the 8 x 16 of b, as csrc/kernels/sm90.h has them.
template <typename Element>
struct Product {
  f32 d[4];
  vector<Element, 2> a[4], b[2];
};
template <typename Element>
DEVICE void multiply_add(f32 (&d)[4], u32x4 a, const u32 (&b)[2]) {
  using Pair = vector<Element, 2>;
  Product<Element> mine;
  for (u32 i = 0; i < 4; ++i) {
    const u32 word = a[i];  // clang would cast the first element in place of another one
    mine.d[i] = d[i];
    mine.a[i] = __builtin_bit_cast(Pair, word);
  }
  for (u32 i = 0; i < 2; ++i) mine.b[i] = __builtin_bit_cast(Pair, b[i]);
  const auto sum = together<f32x4>(mine, [](const Product<Element>* in, f32x4* out) {
    for (u32 lane = 0; lane < kWaveSize; ++lane) {
      for (u32 i = 0; i < 4; ++i) {
        const u32 row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        f32 x = in[lane].d[i];
        for (u32 k = 0; k < 16; ++k) {
          const auto& of_a = in[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
          const auto& of_b = in[column * 4 + k % 8 / 2].b[k / 8];
          x += static_cast<f32>(of_a[k % 2]) * static_cast<f32>(of_b[k % 2]);
        }
        out[lane][i] = x;
      }
    }
  });
  for (u32 i = 0; i < 4; ++i) d[i] = sum[i];
}
