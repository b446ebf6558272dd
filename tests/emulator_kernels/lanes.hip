// SPDX-License-Identifier: Apache-2.0
// Exchange between the lanes of one wave: x is the lane's word, each kernel writes one per lane.
#include "device.h"

using u32x2 = u32 __attribute__((ext_vector_type(2)));
using i32x2 = i32 __attribute__((ext_vector_type(2)));
using i16x4 = i16 __attribute__((ext_vector_type(4)));

#define LANES(name, ...)                                    \
  KERNEL(64) name(const u32 *input, u32 *results) {         \
    u32 lane = thread_id();                                 \
    [[maybe_unused]] i32 x = input[lane];                   \
    results[lane] = (u32)(__VA_ARGS__);                     \
  }
// Lanes without a source keep 7; masks choose rows of 16 lanes and banks of 4 lanes of each row.
#define DPP(name, control, rows, banks) \
  LANES(name, __builtin_amdgcn_update_dpp(7, x, control, rows, banks, false))
#define BIT_MODE(and_mask, or_mask, xor_mask) (and_mask | or_mask << 5 | xor_mask << 10)

DPP(quad_permute, 0x1b, 0xf, 0xf)
DPP(row_shift_left, 0x103, 0xf, 0xf)
DPP(row_shift_right, 0x115, 0xf, 0xf)
DPP(row_rotate, 0x125, 0xf, 0xf)
DPP(wave_shift_left, 0x130, 0xf, 0xf)
DPP(wave_rotate_left, 0x134, 0xf, 0xf)
DPP(wave_shift_right, 0x138, 0xf, 0xf)
DPP(wave_rotate_right, 0x13c, 0xf, 0xf)
DPP(row_mirror, 0x140, 0xf, 0xf)
DPP(row_half_mirror, 0x141, 0xf, 0xf)
DPP(row_broadcast_15, 0x142, 0xa, 0xf)
DPP(row_broadcast_31, 0x143, 0xc, 0xf)
DPP(row_new_broadcast, 0x153, 0xf, 0xf)
DPP(masked, 0x140, 0x5, 0x3)
LANES(bound_control, __builtin_amdgcn_update_dpp(7, x, 0x115, 0xf, 0xf, true))

LANES(swizzle_bits, __builtin_amdgcn_ds_swizzle(x, BIT_MODE(0x1e, 1, 0x0c)))
LANES(swizzle_quad, __builtin_amdgcn_ds_swizzle(x, 0x8000 | 0x1b))
LANES(pull, __builtin_amdgcn_ds_bpermute((i32)(lane * 7 + 3) << 2, x))
LANES(push, __builtin_amdgcn_ds_permute((i32)(lane * 7 + 3) << 2, x))
LANES(read_lane, __builtin_amdgcn_readlane(x, 37) + __builtin_amdgcn_readlane(x, input[1] & 63))
LANES(read_first_lane, __builtin_amdgcn_readfirstlane(x))
DEVICE i32 with_lane(i32 x, u32 value) {
  asm("v_readfirstlane_b32 s0, %1\n s_nop 4\n v_writelane_b32 %0, s0, 21"
      : "+v"(x)
      : "v"(value)
      : "s0");
  return x;
}
LANES(write_lane, with_lane(x, input[3]))
LANES(ballot_low, __builtin_amdgcn_ballot_w64((x & 3) == 1))
LANES(ballot_high, __builtin_amdgcn_ballot_w64((x & 3) == 1) >> 32)
LANES(rank, __builtin_amdgcn_mbcnt_hi(input[0], __builtin_amdgcn_mbcnt_lo(input[1], 5)))

DEVICE u32 of_active(i32 x, u32 lane) {
  if (lane < 20 || lane % 5 == 0) return 1;
  return __builtin_amdgcn_readfirstlane(x);
}
LANES(read_first_active_lane, of_active(x, lane))

// Pulls from lanes that are switched off give 0.
DEVICE u32 from_active(i32 x, u32 lane) {
  u32 result = 9;
  if (lane & 1) result = __builtin_amdgcn_ds_bpermute((i32)(lane ^ 3) << 2, x);
  return result;
}
LANES(pull_from_active, from_active(x, lane))

// Sums over the wave, by rows and by halving.
DEVICE u32 sum_by_rows(u32 x) {
#define STEP(control, rows) x += __builtin_amdgcn_update_dpp(0, x, control, rows, 0xf, true)
  STEP(0x111, 0xf);
  STEP(0x112, 0xf);
  STEP(0x114, 0xf);
  STEP(0x118, 0xf);
  STEP(0x142, 0xa);
  STEP(0x143, 0xc);
  return __builtin_amdgcn_readlane(x, 63);
}
DEVICE u32 sum_by_halves(u32 x, u32 lane) {
  for (u32 distance = 32; distance; distance >>= 1)
    x += __builtin_amdgcn_ds_bpermute((lane ^ distance) << 2, x);
  return x;
}
LANES(sum_of_rows, sum_by_rows(x))
LANES(sum_of_halves, sum_by_halves(x, lane))

#ifdef __gfx950__
DEVICE u32 part(u32x2 pair, u32 index) { return index ? pair[1] : pair[0]; }
LANES(swap_rows_first, part(__builtin_amdgcn_permlane16_swap(x, ~x, false, false), 0))
LANES(swap_rows_second, part(__builtin_amdgcn_permlane16_swap(x, ~x, false, false), 1))
LANES(swap_halves_first, part(__builtin_amdgcn_permlane32_swap(x, ~x, false, false), 0))
LANES(swap_halves_second, part(__builtin_amdgcn_permlane32_swap(x, ~x, false, false), 1))

// Sixteen lanes read a block whose lines are 16 elements; each lane gets a column.
KERNEL(64) transpose_16(const i16x4 *input, i16x4 *results) {
  SHARED i16x4 block[64];
  block[thread_id()] = input[thread_id()];
  block_sync();
  using Lds = __attribute__((address_space(3))) i16x4;
  results[thread_id()] = __builtin_amdgcn_ds_read_tr16_b64_v4i16((Lds *)(block + thread_id()));
}
KERNEL(64) transpose_8(const i32x2 *input, i32x2 *results) {
  SHARED i32x2 block[64];
  block[thread_id()] = input[thread_id()];
  block_sync();
  using Lds = __attribute__((address_space(3))) i32x2;
  results[thread_id()] = __builtin_amdgcn_ds_read_tr8_b64_v2i32((Lds *)(block + thread_id()));
}
#endif
