// SPDX-License-Identifier: Apache-2.0
// Those primitives of csrc/kernels/nvptx.h that Hopper's kernels use, on the CPU.
#pragma once

#include "machine.h"

#define EXPORTED __attribute__((visibility("default")))
#define KERNEL(threads, blocks) extern "C" EXPORTED void

DEVICE u32 thread_id() { return machine::index().thread; }
DEVICE u32 block_id_x() { return machine::index().block[0]; }
DEVICE u32 block_id_y() { return machine::index().block[1]; }
DEVICE u32 block_id_z() { return machine::index().block[2]; }
DEVICE u32 lane_id() { return thread_id() % kWaveSize; }
DEVICE u32 wave_id() { return thread_id() / kWaveSize; }

DEVICE void block_sync() { machine::meet(0, JAX_MLA_THREADS); }

DEVICE f32 exp2(f32 x) { return __builtin_exp2f(x); }
DEVICE f32 log2(f32 x) { return __builtin_log2f(x); }
DEVICE f32 reciprocal(f32 x) { return 1.0f / x; }

// One lane's part of what a wave does: `all(in, out)` for its 32 lanes. Each kind of operation has a
// lambda, and so an address, of its own.
template <typename Out, typename In, typename All>
DEVICE Out together(const In& in, All) {
  static const char operation = 0;
  return *static_cast<Out*>(machine::together(
      &operation, &in, sizeof(In), sizeof(Out),
      [](const void* x, void* y) { All{}(static_cast<const In*>(x), static_cast<Out*>(y)); }));
}

struct Shuffle {
  u32 x, lane;
};
DEVICE u32 shuffle(u32 x, u32 lane) {
  return together<u32>(Shuffle{x, lane}, [](const Shuffle* in, u32* out) {
    for (u32 i = 0; i < kWaveSize; ++i) out[i] = in[in[i].lane % kWaveSize].x;
  });
}
template <u32 mask>
DEVICE u32 shuffle_xor(u32 x) {
  return shuffle(x, lane_id() ^ mask);
}
DEVICE u32 ballot(bool x) {
  return together<u32>(x, [](const bool* in, u32* out) {
    u32 bits = 0;
    for (u32 i = 0; i < kWaveSize; ++i) bits |= static_cast<u32>(in[i]) << i;
    for (u32 i = 0; i < kWaveSize; ++i) out[i] = bits;
  });
}
DEVICE u32 wave_scan(u32 x) {
  return together<u32>(x, [](const u32* in, u32* out) {
    u32 sum = 0;
    for (u32 i = 0; i < kWaveSize; ++i) out[i] = sum += in[i];
  });
}
DEVICE u32 wave_sum(u32 x) { return shuffle(wave_scan(x), kWaveSize - 1); }

DEVICE f32 fp8_value(u32 code) {
  const u32 exponent = code >> 3 & 15, mantissa = code & 7;
  const f32 size = exponent == 0 ? static_cast<f32>(mantissa) * 0x1p-9f
                                 : __builtin_bit_cast(f32, (exponent + 120) << 23 | mantissa << 20);
  const f32 value = (code & 0x7f) == 0x7f ? __builtin_nanf("") : size;
  return code & 0x80 ? -value : value;
}
DEVICE vector<f16, 2> pair_to_f16(u16 codes) {
  return {static_cast<f16>(fp8_value(codes & 0xff)), static_cast<f16>(fp8_value(codes >> 8))};
}
DEVICE f32x4 to_f32(fp8x4 x) {
  return f32x4{fp8_value(x[0]), fp8_value(x[1]), fp8_value(x[2]), fp8_value(x[3])};
}

template <bool transposed>
DEVICE u32x4 load_matrices(const void* row) {
  return together<u32x4>(row, [](const void* const* rows, u32x4* out) {
    for (u32 lane = 0; lane < kWaveSize; ++lane) {
      for (u32 matrix = 0; matrix < 4; ++matrix) {
        const auto at = [&](u32 i, u32 j) {
          return static_cast<const u16*>(rows[matrix * 8 + i])[j];
        };
        const u32 one = lane / 4, two = lane % 4 * 2;
        const u32 low = transposed ? at(two, one) : at(one, two);
        const u32 high = transposed ? at(two + 1, one) : at(one, two + 1);
        out[lane][matrix] = low | high << 16;
      }
    }
  });
}

DEVICE void copy_word_async(void* destination, const void* source) {
  machine::copy_word(destination, source);
}
DEVICE void copy_commit() {}
template <u32 groups, u32 copies>
DEVICE void copy_wait() {
  static_assert(groups == 0);
  machine::wait_for_words();
}
