// SPDX-License-Identifier: Apache-2.0
// Dot products inside a work-item. Inputs of floats are cut to small whole numbers: how far sums
// are kept between the products is not published.
#include "floats.h"

using i16x2 = i16 __attribute__((ext_vector_type(2)));
using u16x2 = u16 __attribute__((ext_vector_type(2)));
using bf16x2 = __bf16 __attribute__((ext_vector_type(2)));

DEVICE f32 small(u32 x, u32 index) { return (f32)(i32)((x >> 16 * index) % 31) - 15; }
DEVICE f32 small_dot(u32 x, u32 y, u32 z) {
  return small(x, 0) * small(y, 0) + small(x, 1) * small(y, 1) + small(z, 0);
}
DEVICE f16x2 halves(u32 x) { return {(f16)small(x, 0), (f16)small(x, 1)}; }
DEVICE u32 half_of(u32 x, u32 index) { return x >> 16 * index & 0xffff; }
DEVICE u32 dot_halves(u32 x, u32 y, u32 z) {
  return half_of(x, 0) * half_of(y, 0) + half_of(x, 1) * half_of(y, 1) + z;
}
DEVICE i32 dot_halves_signed(u32 x, u32 y, u32 z) {
  u32 low = (u32)((i16)half_of(x, 0) * (i16)half_of(y, 0));
  u32 high = (u32)((i16)half_of(x, 1) * (i16)half_of(y, 1));
  return (i32)(low + high + z);
}
DEVICE i32 nibble(u32 x, u32 index) { return (i32)(x << (28 - 4 * index)) >> 28; }
DEVICE u32 dot_nibbles(u32 x, u32 y, u32 z, bool is_signed) {
  for (u32 i = 0; i < 8; i++)
    z += is_signed ? (u32)(nibble(x, i) * nibble(y, i)) : (nibble(x, i) & 15) * (nibble(y, i) & 15);
  return z;
}

ITEM(dot2_f16, u32, f32,
     PICK(__builtin_amdgcn_fdot2(halves(x), halves(y), small(z, 0), false), small_dot(x, y, z)))
ITEM(dot2_u16, u32, u32,
     PICK(__builtin_amdgcn_udot2(__builtin_bit_cast(u16x2, x), __builtin_bit_cast(u16x2, y), z,
                                 false),
          dot_halves(x, y, z)))
ITEM(dot2_i16, u32, i32,
     PICK(__builtin_amdgcn_sdot2(__builtin_bit_cast(i16x2, x), __builtin_bit_cast(i16x2, y), z,
                                 false),
          dot_halves_signed(x, y, z)))
ITEM(dot8_u4, u32, u32, PICK(__builtin_amdgcn_udot8(x, y, z, false), dot_nibbles(x, y, z, false)))
ITEM(dot8_i4, u32, u32, PICK(__builtin_amdgcn_sdot8(x, y, z, false), dot_nibbles(x, y, z, true)))
