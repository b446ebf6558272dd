// SPDX-License-Identifier: Apache-2.0
// Arithmetic that gfx950 adds, item by item.
#include "floats.h"

using bf16x2 = __bf16 __attribute__((ext_vector_type(2)));

DEVICE u32 by_table(u32 x, u32 y, u32 z, u32 table) {
  u32 result = 0;
  for (u32 bit = 0; bit < 32; bit++) {
    u32 index = (x >> bit & 1) << 2 | (y >> bit & 1) << 1 | (z >> bit & 1);
    result |= (table >> index & 1) << bit;
  }
  return result;
}
#define BY_TABLE(table) PICK(__builtin_amdgcn_bitop3_b32(x, y, z, table), by_table(x, y, z, table))
ITEM(bitop3_01, u32, u32, BY_TABLE(0x01))
ITEM(bitop3_12, u32, u32, BY_TABLE(0x12))
ITEM(bitop3_e4, u32, u32, BY_TABLE(0xe4))
ITEM(bitop3_96, u32, u32, BY_TABLE(0x96))
ITEM(bitop3_5b, u32, u32, BY_TABLE(0x5b))
ITEM(bitop3_half, u16, u16,
     PICK(__builtin_amdgcn_bitop3_b16(x, y, z, 0x2d), by_table(x, y, z, 0x2d)))

// NaN wins and the zeros are ordered, unlike in the older minimum and maximum.
DEVICE f32 least(f32 a, f32 b) { return a != a || b != b ? a + b : smaller(a, b); }
DEVICE f32 most(f32 a, f32 b) { return a != a || b != b ? a + b : larger(a, b); }
#define FOLD(device, host) PICK(device(device(x, y), z), host(host(x, y), z))
ITEM(minimum3, f32, f32, FOLD(__builtin_elementwise_minimum, least))
ITEM(maximum3, f32, f32, FOLD(__builtin_elementwise_maximum, most))

DEVICE i32 held(i32 value, i32 low, i32 high) {
  return value < low ? low : value > high ? high : value;
}
ITEM(shift_pack_signed, i32, u16,
     PICK(__builtin_amdgcn_ashr_pk_i8_i32(x, y, z & 31),
          (u8)held(x >> (z & 31), -128, 127) | (u8)held(y >> (z & 31), -128, 127) << 8))
ITEM(shift_pack_unsigned, i32, u16,
     PICK(__builtin_amdgcn_ashr_pk_u8_i32(x, y, z & 31),
          (u8)held(x >> (z & 31), 0, 255) | (u8)held(y >> (z & 31), 0, 255) << 8))
ITEM(random_step, u32, u32, PICK(__builtin_amdgcn_prng_b32(x), x << 1 ^ (x >> 31 ? 197 : 0)))

DEVICE f32 small(u32 x, u32 index) { return (f32)(i32)((x >> 16 * index) % 31) - 15; }
DEVICE bf16x2 pair(u32 x) { return __builtin_bit_cast(bf16x2, x); }
DEVICE u32 small_pair(u32 x) { return to_bf16(small(x, 0)) | (u32)to_bf16(small(x, 1)) << 16; }
ITEM(dot2_bf16, u32, f32,
     PICK(__builtin_amdgcn_fdot2_f32_bf16(pair(small_pair(x)), pair(small_pair(y)), small(z, 0),
                                          false),
          small(x, 0) * small(y, 0) + small(x, 1) * small(y, 1) + small(z, 0)))
