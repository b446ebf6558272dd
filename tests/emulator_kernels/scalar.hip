// SPDX-License-Identifier: Apache-2.0
// Instructions of the scalar unit that C++ seldom leads to. In assembly; what they set in SCC
// comes back as the second word.
#include "device.h"

#ifdef __AMDGCN__
#define SCALAR(text, a, b)                                                       \
  [&] {                                                                          \
    u32 result, flag;                                                            \
    asm(text "\n s_cselect_b32 %1, 1, 0"                                         \
        : "=&s"(result), "=s"(flag)                                              \
        : "s"(uniform((u32)(a))), "s"(uniform((u32)(b)))                                       \
        : "scc");                                                                \
    return result | (u64)flag << 32;                                             \
  }()
#define SCALAR_WIDE(Result, text, a)                      \
  [&] {                                                   \
    Result result;                                        \
    asm(text : "=&s"(result) : "s"(uniform(a)) : "scc");  \
    return result;                                        \
  }()
DEVICE u32 uniform(u32 x) { return __builtin_amdgcn_readfirstlane(x); }
DEVICE u64 uniform(u64 x) { return uniform((u32)x) | (u64)uniform((u32)(x >> 32)) << 32; }
#else
#define SCALAR(text, a, b) 0
#define SCALAR_WIDE(Result, text, a) 0
#endif

DEVICE u64 with_flag(u32 result, bool flag) { return result | (u64)flag << 32; }
DEVICE u64 nonzero(u32 result) { return with_flag(result, result != 0); }
DEVICE u32 first_zero(u64 x, u32 bits) {
  for (u32 i = 0; i < bits; i++)
    if (!(x >> i & 1)) return i;
  return ~0u;
}
DEVICE u32 sign_run(u64 x, u32 bits) {
  for (u32 i = 1; i < bits; i++)
    if ((x >> (bits - 1 - i) & 1) != (x >> (bits - 1) & 1)) return i;
  return ~0u;
}
DEVICE u64 groups(u64 x, u32 bits, bool whole) {
  u64 result = 0;
  for (u32 i = 0; i < bits / 4; i++)
    if (x >> 4 * i & 15) result |= whole ? 15ul << 4 * i : 1ul << i;
  return result;
}
DEVICE u64 doubled(u32 x) {
  u64 result = 0;
  for (u32 i = 0; i < 32; i++) result |= (u64)(x >> i & 1) * 3 << 2 * i;
  return result;
}

ITEM(absolute_difference, i32, u64,
     PICK(SCALAR("s_absdiff_i32 %0, %2, %3", x, y),
          nonzero(x > y ? (u32)x - (u32)y : (u32)y - (u32)x)))
ITEM(absolute, i32, u64, PICK(SCALAR("s_abs_i32 %0, %2", x, y), nonzero(x < 0 ? -(u32)x : x)))
ITEM(count_zeros, u32, u64,
     PICK(SCALAR("s_bcnt0_i32_b32 %0, %2", x, y), nonzero(__builtin_popcount(~x))))
ITEM(shift_1_add, u32, u64,
     PICK(SCALAR("s_lshl1_add_u32 %0, %2, %3", x, y),
          with_flag((x << 1) + y, (((u64)x << 1) + y) >> 32)))
ITEM(shift_4_add, u32, u64,
     PICK(SCALAR("s_lshl4_add_u32 %0, %2, %3", x, y),
          with_flag((x << 4) + y, (((u64)x << 4) + y) >> 32)))
ITEM(pack_low, u32, u32, PICK(SCALAR("s_pack_ll_b32_b16 %0, %2, %3", x, y),
                              (x & 0xffff) | y << 16))
ITEM(pack_mixed, u32, u32, PICK(SCALAR("s_pack_lh_b32_b16 %0, %2, %3", x, y),
                                (x & 0xffff) | (y & 0xffff0000)))
ITEM(pack_high, u32, u32, PICK(SCALAR("s_pack_hh_b32_b16 %0, %2, %3", x, y),
                               x >> 16 | (y & 0xffff0000)))
ITEM(extend_byte, u32, u32, PICK(SCALAR("s_sext_i32_i8 %0, %2", x, y), (u32)(i8)x))
ITEM(extend_half, u32, u32, PICK(SCALAR("s_sext_i32_i16 %0, %2", x, y), (u32)(i16)x))
ITEM(find_zero, u32, u32, PICK(SCALAR("s_ff0_i32_b32 %0, %2", x, y), first_zero(x, 32)))
ITEM(find_sign_change, u32, u32, PICK(SCALAR("s_flbit_i32 %0, %2", x, y), sign_run(x, 32)))
ITEM(bit_mask, u32, u32, PICK(SCALAR("s_bfm_b32 %0, %2, %3", x, y),
                              ((1u << (x & 31)) - 1) << (y & 31)))
ITEM(field, u32, u64,
     PICK(SCALAR("s_bfe_u32 %0, %2, %3", x, (y & 31) | (z & 15) << 16),
          nonzero(x >> (y & 31) & ((1u << (z & 15)) - 1))))
ITEM(set_bit, u32, u32,
     PICK(SCALAR("s_mov_b32 %0, %2\n s_bitset1_b32 %0, %3", x, y), x | 1u << (y & 31)))
ITEM(clear_bit, u32, u32,
     PICK(SCALAR("s_mov_b32 %0, %2\n s_bitset0_b32 %0, %3", x, y), x & ~(1u << (y & 31))))
ITEM(test_bit, u32, u64,
     PICK(SCALAR("s_mov_b32 %0, 5\n s_bitcmp1_b32 %2, %3", x, y), with_flag(5, x >> (y & 31) & 1)))
ITEM(conditional_move, u32, u64,
     PICK(SCALAR("s_mov_b32 %0, 9\n s_cmp_gt_i32 %2, %3\n s_cmov_b32 %0, %2", x, y),
          with_flag((i32)x > (i32)y ? x : 9, (i32)x > (i32)y)))
ITEM(borrow, u32, u64,
     PICK(SCALAR("s_cmp_lt_u32 %3, %2\n s_subb_u32 %0, %2, %3", x, y),
          with_flag(x - y - (y < x), (u64)y + (y < x) > x)))
ITEM(overflow, i32, u64,
     PICK(SCALAR("s_add_i32 %0, %2, %3", x, y),
          with_flag((u32)x + (u32)y, (i64)x + y != (i32)((u32)x + (u32)y))))
ITEM(quads, u64, u32, PICK(SCALAR_WIDE(u64, "s_quadmask_b64 %0, %1", x), groups(x, 64, false)))
ITEM(whole_quads, u64, u64, PICK(SCALAR_WIDE(u64, "s_wqm_b64 %0, %1", x), groups(x, 64, true)))
ITEM(replicate, u64, u64,
     PICK(SCALAR_WIDE(u64, "s_bitreplicate_b64_b32 %0, %1", (u32)x), doubled(x)))
ITEM(wide_find_zero, u64, u32, PICK(SCALAR_WIDE(u32, "s_ff0_i32_b64 %0, %1", x), first_zero(x, 64)))
ITEM(wide_find_sign_change, u64, u32,
     PICK(SCALAR_WIDE(u32, "s_flbit_i32_i64 %0, %1", x), sign_run(x, 64)))
ITEM(wide_not, u64, u64, PICK(SCALAR_WIDE(u64, "s_not_b64 %0, %1", x), ~x))
ITEM(wide_reverse, u64, u64,
     PICK(SCALAR_WIDE(u64, "s_brev_b64 %0, %1", x), __builtin_bitreverse64(x)))
