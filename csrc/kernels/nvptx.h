// SPDX-License-Identifier: Apache-2.0
// Primitives on NVIDIA GPUs. Included by device.h.
#pragma once

// Launched with `threads` threads, at least `blocks` blocks to a multiprocessor.
#define KERNEL(threads, blocks) \
  extern "C" __attribute__((global)) __attribute__((launch_bounds(threads, blocks))) void

DEVICE u32 thread_id() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_id_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_id_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_id_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEVICE u32 lane_id() { return thread_id() % kWaveSize; }
DEVICE u32 wave_id() { return thread_id() / kWaveSize; }

DEVICE void block_sync() { __syncthreads(); }
DEVICE void keep_order() {}  // ptxas has an order of its own

// The hardware's, about two units in the last place.
DEVICE f32 exp2(f32 x) { return __nvvm_ex2_approx_ftz_f(x); }
DEVICE f32 log2(f32 x) { return __nvvm_lg2_approx_ftz_f(x); }
DEVICE f32 reciprocal(f32 x) { return __nvvm_rcp_approx_ftz_f(x); }

constexpr u32 kAllLanes = 0xffffffff;

DEVICE u32 shuffle(u32 x, u32 lane) { return __nvvm_shfl_sync_idx_i32(kAllLanes, x, lane, 31); }
DEVICE u32 first_of_8(u32 x) { return shuffle(x, lane_id() / 8 * 8); }
template <u32 mask>
DEVICE u32 shuffle_xor(u32 x) {
  static_assert(mask < kWaveSize);
  return __nvvm_shfl_sync_bfly_i32(kAllLanes, x, mask, 31);
}

DEVICE u32 ballot(bool x) { return __nvvm_vote_ballot_sync(kAllLanes, x); }
DEVICE u32 wave_sum(u32 x) {
  u32 sum;
  asm volatile("redux.sync.add.u32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(x));
  return sum;
}
DEVICE u32 wave_scan(u32 x) {
  for (u32 reach = 1; reach < kWaveSize; reach *= 2) {
    const u32 below = __nvvm_shfl_sync_up_i32(kAllLanes, x, reach, 0);
    if (lane_id() >= reach) x += below;
  }
  return x;
}

#if __CUDA_ARCH__ >= 890
DEVICE vector<f16, 2> pair_to_f16(u16 codes) {
  u32 pair;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(codes));
  return __builtin_bit_cast(vector<f16, 2>, pair);
}
DEVICE f32x4 to_f32(fp8x4 x) {
  const u32 codes = __builtin_bit_cast(u32, x);
  const auto low = pair_to_f16(static_cast<u16>(codes));
  const auto high = pair_to_f16(static_cast<u16>(codes >> 16));
  return f32x4{low[0], low[1], high[0], high[1]};
}
DEVICE u32 pair_to_fp8(f32 low, f32 high) {
  u16 codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
}
DEVICE fp8x4 to_fp8(f32x4 x) {
  return __builtin_bit_cast(fp8x4, pair_to_fp8(x[0], x[1]) | pair_to_fp8(x[2], x[3]) << 16);
}
#else
// Ampere has no such instruction. The bits of e4m3 stand for 2^-8 of their value in f16, but for
// the NaN, which stands for 480 there.
DEVICE f32 fp8_value(u32 code) {
  const u16 bits = static_cast<u16>((code & 0x80) << 8 | (code & 0x7f) << 7);
  const f32 value = static_cast<f32>(__builtin_bit_cast(f16, bits)) * 256.0f;
  return (code & 0x7f) == 0x7f ? __builtin_nanf("") : value;
}
DEVICE f32x4 to_f32(fp8x4 x) {
  return f32x4{fp8_value(x[0]), fp8_value(x[1]), fp8_value(x[2]), fp8_value(x[3])};
}
DEVICE u32 fp8_code(f32 x) {
  const u32 bits = __builtin_bit_cast(u32, x);
  const u32 sign = bits >> 24 & 0x80;
  const f32 size = __builtin_fabsf(x);
  if (x != x) return 0x7f;
  if (size >= 448.0f) return sign | 0x7e;
  // Below 2^-6 steps are 2^-9, those of f32 from 2^14: the addition rounds.
  if (size < 0x1p-6f) return sign | (__builtin_bit_cast(u32, size + 0x1p14f) & 0xf);
  const u32 magnitude = bits & 0x7fffffff;
  const u32 rounded = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
  return sign | (rounded - ((127 - 7) << 3));
}
DEVICE fp8x4 to_fp8(f32x4 x) {
  const u32 codes = fp8_code(x[0]) | fp8_code(x[1]) << 8 | fp8_code(x[2]) << 16 |
                    fp8_code(x[3]) << 24;
  return __builtin_bit_cast(fp8x4, codes);
}
#endif

// The address that instructions of shared memory take.
DEVICE u32 shared_address(const void* pointer) {
  using Shared = const __attribute__((address_space(3))) void;
  return static_cast<u32>(reinterpret_cast<u64>((Shared*)pointer));
}

// --- Matrix instructions ---

constexpr u32 kMatrixDepth = 16;

// Elements 2 j and 2 j + 1 are neighbours in a row.
DEVICE u32 operand_row(u32 i) { return i / 4 * 8 + lane_id() / 4; }
template <u32 depth>
DEVICE u32 operand_column(u32 i) {
  static_assert(depth == 16);
  return i / 2 % 2 * 8 + lane_id() % 4 * 2 + i % 2;
}
DEVICE u32 result_row(u32 i) { return i / 2 % 2 * 8 + lane_id() / 4; }
DEVICE u32 result_column(u32 i) { return i / 4 * 8 + lane_id() % 4 * 2 + i % 2; }

// Four matrices of 8 x 8, one to each word of the result; lanes 8 i to 8 i + 7 point to the rows of
// matrix i.
template <bool transposed>
DEVICE u32x4 load_matrices(const void* row) {
  u32 x[4];
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
  return u32x4{x[0], x[1], x[2], x[3]};
}
template <typename Element, u32 depth, typename At>
DEVICE Operand<Element, depth> load_operand(At at) {
  const u32 row = lane_id() / 16 * 8 + lane_id() % 8, column = lane_id() / 8 % 2 * 8;
  return __builtin_bit_cast(Operand<Element, depth>, load_matrices<false>(at(row, column)));
}

DEVICE u32 transposed_column(u32 operand, u32 row) { return operand * 16 + row; }
template <typename Element, u32 size, u32 count, typename At>
DEVICE void load_transposed(At at, vector<Element, size> (&operands)[count]) {
  const u32 row = lane_id() / 8 % 2 * 8 + lane_id() % 8, column = lane_id() / 16 * 8;
  for (u32 n = 0; n < count; ++n) {
    const auto* place = at(row, n * 16 + column);
    operands[n] = __builtin_bit_cast(Operand<Element, 16>, load_matrices<true>(place));
  }
}

// One instruction makes 8 of the 16 columns; it takes the quarters of a column by column.
#define MULTIPLY_ADD(Element, type)                                                              \
  DEVICE Result multiply_add(Operand<Element, 16> a, Operand<Element, 16> b, Result c) {         \
    const auto x = __builtin_bit_cast(u32x4, a), y = __builtin_bit_cast(u32x4, b);               \
    for (u32 half = 0; half < 2; ++half) {                                                       \
      f32 d[4] = {c[4 * half], c[4 * half + 1], c[4 * half + 2], c[4 * half + 3]};               \
      asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                         \
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                      \
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                       \
          : "r"(x[0]), "r"(x[2]), "r"(x[1]), "r"(x[3]), "r"(y[2 * half]), "r"(y[2 * half + 1])); \
      for (u32 i = 0; i < 4; ++i) c[4 * half + i] = d[i];                                        \
    }                                                                                            \
    return c;                                                                                    \
  }
MULTIPLY_ADD(bf16, "bf16")
MULTIPLY_ADD(f16, "f16")
#undef MULTIPLY_ADD

// --- Asynchronous copies ---

constexpr u32 kCopyBytes = 16;

DEVICE void copy_async(void* wave_destination, const void* source) {
  const u32 destination = shared_address(wave_destination) + lane_id() * kCopyBytes;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(destination), "l"(source)
               : "memory");
}
// Four bytes, by one thread.
DEVICE void copy_word_async(void* destination, const void* source) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
               :
               : "r"(shared_address(destination)), "l"(source)
               : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
template <u32 groups, u32 copies>
DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(groups) : "memory");
}
