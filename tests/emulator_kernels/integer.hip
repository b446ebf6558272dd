// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic of 16, 32 and 64 bits, item by item.
#include "device.h"

DEVICE u32 bit_field(u32 value, u32 offset, u32 width) {
  offset &= 31, width &= 31;
  return width == 0 ? 0 : (value >> offset) & (~0u >> (32 - width));
}
DEVICE i32 signed_bit_field(i32 value, u32 offset, u32 width) {
  offset &= 31, width &= 31;
  if (width == 0) return 0;
  return offset + width < 32 ? (i32)((u32)value << (32 - offset - width)) >> (32 - width)
                             : value >> offset;
}
DEVICE u32 byte_of(u64 value, u32 index) { return (u32)(value >> (8 * index)) & 255; }
DEVICE u32 permuted(u32 high, u32 low, u32 selector) {
  u64 pool = (u64)high << 32 | low;
  u32 result = 0;
  for (u32 i = 0; i < 4; i++) {
    u32 choice = selector >> (8 * i) & 255, byte = 0;
    if (choice < 8) byte = byte_of(pool, choice);
    else if (choice < 12) byte = byte_of(pool, 2 * (choice - 8) + 1) >> 7 ? 255 : 0;
    else if (choice > 12) byte = 255;
    result |= byte << (8 * i);
  }
  return result;
}
DEVICE u32 byte_differences(u32 a, u32 b, u32 sum, bool masked = false) {
  for (u32 i = 0; i < 4; i++) {
    u32 p = byte_of(a, i), q = byte_of(b, i);
    if (masked && q == 0) continue;
    sum += p > q ? p - q : q - p;
  }
  return sum;
}
DEVICE u32 averaged_bytes(u32 a, u32 b, u32 rounding) {
  u32 result = 0;
  for (u32 i = 0; i < 4; i++)
    result |= (byte_of(a, i) + byte_of(b, i) + (rounding >> (8 * i) & 1)) >> 1 << (8 * i);
  return result;
}
DEVICE i32 dot_signed_bytes(u32 a, u32 b, i32 sum) {
  for (u32 i = 0; i < 4; i++) sum += (i32)(i8)byte_of(a, i) * (i8)byte_of(b, i);
  return sum;
}
DEVICE u32 dot_bytes(u32 a, u32 b, u32 sum) {
  for (u32 i = 0; i < 4; i++) sum += byte_of(a, i) * byte_of(b, i);
  return sum;
}
DEVICE i32 clamped(i64 value, i64 low, i64 high) {
  return (i32)(value < low ? low : value > high ? high : value);
}
DEVICE u32 median(u32 a, u32 b, u32 c) {
  u32 low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}
DEVICE i32 signed_median(i32 a, i32 b, i32 c) {
  i32 low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

using u16x2 = u16 __attribute__((ext_vector_type(2)));
using i16x2 = i16 __attribute__((ext_vector_type(2)));
DEVICE u16x2 halves(u32 x) { return __builtin_bit_cast(u16x2, x); }
DEVICE i16x2 signed_halves(u32 x) { return __builtin_bit_cast(i16x2, x); }
template <class Pair>
DEVICE u32 joined(Pair pair) {
  return (u16)pair.x | (u32)(u16)pair.y << 16;
}
DEVICE u32 half_differences(u32 a, u32 b, u32 sum) {
  for (u32 shift = 0; shift < 32; shift += 16) {
    u32 p = a >> shift & 0xffff, q = b >> shift & 0xffff;
    sum += p > q ? p - q : q - p;
  }
  return sum;
}

ITEM(add_mul, u32, u32, x + y * z)
ITEM(sub, u32, u32, x - y - z)
ITEM(mul_high, u32, u32, ((u64)x * y) >> 32)
ITEM(mul_high_signed, i32, u32, (u64)((i64)x * y) >> 32)
ITEM(mul_wide, u32, u64, (u64)x * y + z)
ITEM(mul_wide_signed, i32, i64, (i64)x * y + z)
ITEM(mul_24, u32, u32, (x & 0xffffff) * (y & 0xffffff) + z)
ITEM(mul_24_signed, u32, u32, ((i32)(x << 8) >> 8) * (u32)((i32)(y << 8) >> 8) + z)
ITEM(divide, u32, u32, y ? x / y : z)
ITEM(modulo, u32, u32, y ? x % y : z)
ITEM(divide_signed, i32, i32, y == 0 || y == -1 ? z : x / y)
ITEM(modulo_signed, i32, i32, y == 0 || y == -1 ? z : x % y)
ITEM(divide_constant, u32, u32, x / 7 + y % 1000003)
ITEM(shift_left, u32, u32, x << (y & 31))
ITEM(shift_right, u32, u32, x >> (y & 31))
ITEM(shift_signed, i32, i32, x >> (y & 31))
ITEM(shift_add, u32, u32, (x << 3) + (y << (z & 31)))
ITEM(add_shift, u32, u32, (x + y) << (z & 31))
ITEM(shift_or, u32, u32, (x << (y & 31)) | z)
ITEM(and_or, u32, u32, (x & y) | z)
ITEM(or3, u32, u32, x | y | z)
ITEM(exclusive, u32, u32, (x ^ y) + (~(x ^ z)))
ITEM(choose_bits, u32, u32, (x & y) | (~x & z))
ITEM(add3, u32, u32, x + y + z)
ITEM(exclusive_add, u32, u32, (x ^ y) + z)
ITEM(rotate, u32, u32, (x << (y & 31)) | (x >> (-y & 31)))
ITEM(align_bits, u32, u32, PICK(__builtin_amdgcn_alignbit(x, y, z), ((u64)x << 32 | y) >> (z & 31)))
ITEM(align_bytes, u32, u32,
     PICK(__builtin_amdgcn_alignbyte(x, y, z), ((u64)x << 32 | y) >> (8 * (z & 3))))
ITEM(permute, u32, u32, PICK(__builtin_amdgcn_perm(x, y, z), permuted(x, y, z)))
ITEM(permute_marks, u32, u32,
     PICK(__builtin_amdgcn_perm(x, y, z & 0x0f0f0f0f), permuted(x, y, z & 0x0f0f0f0f)))
ITEM(bit_field_extract, u32, u32, PICK(__builtin_amdgcn_ubfe(x, y, z), bit_field(x, y, z)))
ITEM(bit_field_extract_signed, i32, i32,
     PICK(__builtin_amdgcn_sbfe(x, y, z), signed_bit_field(x, y, z)))
ITEM(bit_field_constant, u32, u32, (x >> 5 & 0x3ff) + (u32)((i32)(y << 7) >> 20))
ITEM(popcount, u32, u32, __builtin_popcount(x) + y)
ITEM(leading_zeros, u32, u32, x ? __builtin_clz(x) : 32)
ITEM(trailing_zeros, u32, u32, x ? __builtin_ctz(x) : 32)
ITEM(redundant_signs, i32, i32, __builtin_clrsb(x))
ITEM(reverse_bits, u32, u32, __builtin_bitreverse32(x))
ITEM(swap_bytes, u32, u32, __builtin_bswap32(x))
ITEM(minimum, u32, u32, x < y ? x : y)
ITEM(maximum_signed, i32, i32, x > y ? x : y)
ITEM(minimum3, u32, u32, (x < y ? x : y) < z ? (x < y ? x : y) : z)
ITEM(maximum3_signed, i32, i32, (x > y ? x : y) > z ? (x > y ? x : y) : z)
ITEM(minimum3_signed, i32, i32, (x < y ? x : y) < z ? (x < y ? x : y) : z)
ITEM(maximum3, u32, u32, (x > y ? x : y) > z ? (x > y ? x : y) : z)
ITEM(median3, u32, u32, median(x, y, z))
ITEM(median3_signed, i32, i32, signed_median(x, y, z))
ITEM(absolute, i32, u32, x < 0 ? -(u32)x : (u32)x)
ITEM(compares, u32, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(compares_signed, i32, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(add_saturating, u32, u32, __builtin_elementwise_add_sat(x, y))
ITEM(sub_saturating, u32, u32, __builtin_elementwise_sub_sat(x, y))
ITEM(add_saturating_signed, i32, i32, __builtin_elementwise_add_sat(x, y))
ITEM(sub_saturating_signed, i32, i32, __builtin_elementwise_sub_sat(x, y))
ITEM(byte_sad, u32, u32, PICK(__builtin_amdgcn_sad_u8(x, y, z), byte_differences(x, y, z)))
ITEM(byte_sad_masked, u32, u32,
     PICK(__builtin_amdgcn_msad_u8(x, y, z), byte_differences(x, y, z, true)))
ITEM(byte_sad_high, u32, u32,
     PICK(__builtin_amdgcn_sad_hi_u8(x, y, z), (byte_differences(x, y, 0) << 16) + z))
ITEM(half_sad, u32, u32, PICK(__builtin_amdgcn_sad_u16(x, y, z), half_differences(x, y, z)))
ITEM(byte_average, u32, u32, PICK(__builtin_amdgcn_lerp(x, y, z), averaged_bytes(x, y, z)))
ITEM(dot4, u32, u32, PICK(__builtin_amdgcn_udot4(x, y, z, false), dot_bytes(x, y, z)))
ITEM(dot4_signed, u32, i32,
     PICK(__builtin_amdgcn_sdot4(x, y, z, false), dot_signed_bytes(x, y, z)))
ITEM(pack_saturated, i32, u32,
     PICK(bit_cast<u32>(__builtin_amdgcn_cvt_pk_i16(x, y)),
          (u16)clamped(x, -32768, 32767) | (u32)clamped(y, -32768, 32767) << 16))
ITEM(pack_saturated_unsigned, u32, u32,
     PICK(bit_cast<u32>(__builtin_amdgcn_cvt_pk_u16(x, y)),
          (u32)clamped(x, 0, 65535) | (u32)clamped(y, 0, 65535) << 16))

ITEM(wide_add, u64, u64, x + y + z)
ITEM(wide_sub, u64, u64, x - y)
ITEM(wide_mul, u64, u64, x * y + z)
ITEM(wide_mul_high, u64, u64, ((unsigned __int128)x * y) >> 64)
ITEM(wide_divide, u64, u64, y ? x / y : z)
ITEM(wide_modulo, u64, u64, y ? x % y : z)
ITEM(wide_divide_signed, i64, i64, y == 0 || y == -1 ? z : x / y)
ITEM(wide_modulo_signed, i64, i64, y == 0 || y == -1 ? z : x % y)
ITEM(wide_shift_left, u64, u64, x << (y & 63))
ITEM(wide_shift_right, u64, u64, x >> (y & 63))
ITEM(wide_shift_signed, i64, i64, x >> (y & 63))
ITEM(wide_shift_add, u64, u64, (x << 3) + y)
ITEM(wide_logic, u64, u64, ((x & y) | ~z) ^ (x << 7))
ITEM(wide_popcount, u64, u32, __builtin_popcountl(x))
ITEM(wide_leading_zeros, u64, u32, x ? __builtin_clzl(x) : 64)
ITEM(wide_trailing_zeros, u64, u32, x ? __builtin_ctzl(x) : 64)
ITEM(wide_reverse_bits, u64, u64, __builtin_bitreverse64(x))
ITEM(wide_swap_bytes, u64, u64, __builtin_bswap64(x))
ITEM(wide_minimum, u64, u64, x < y ? x : y)
ITEM(wide_maximum_signed, i64, i64, x > y ? x : y)
ITEM(wide_compares, u64, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(wide_compares_signed, i64, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(wide_hash, u64, u64, (x ^ x >> 33) * 0xff51afd7ed558ccdul + (y ^ z))

ITEM(half_add, u16, u16, x + y)
ITEM(half_mul_add, u16, u16, (u32)x * y + z)
ITEM(half_shift, u16, u16, (x << (y & 15)) ^ (x >> (z & 15)))
ITEM(half_shift_signed, i16, i16, x >> (y & 15))
ITEM(half_minimum, u16, u16, x < y ? x : y)
ITEM(half_maximum_signed, i16, i16, x > y ? x : y)
ITEM(half_add_saturating, u16, u16, __builtin_elementwise_add_sat(x, y))
ITEM(half_sub_saturating_signed, i16, i16, __builtin_elementwise_sub_sat(x, y))
ITEM(half_divide, u16, u16, y ? x / y : z)
ITEM(half_compares_signed, i16, u32, (x < y) | (x <= y) << 1 | (x == y) << 2 | (x > z) << 3)
ITEM(half_minimum_signed, i16, i16, x < y ? x : y)
ITEM(half_maximum, u16, u16, x > y ? x : y)

ITEM(pair_add, u32, u32, joined(halves(x) + halves(y)))
ITEM(pair_sub, u32, u32, joined(halves(x) - halves(y)))
ITEM(pair_mul, u32, u32, joined(halves(x) * halves(y)))
ITEM(pair_mul_add, u32, u32, joined(signed_halves(x) * signed_halves(y) + signed_halves(z)))
ITEM(pair_shift_left, u32, u32, joined(halves(x) << (halves(y) & (u16)15)))
ITEM(pair_shift_right, u32, u32, joined(halves(x) >> (halves(y) & (u16)15)))
ITEM(pair_shift_signed, u32, u32, joined(signed_halves(x) >> (signed_halves(y) & (i16)15)))
ITEM(pair_minimum, u32, u32, joined(__builtin_elementwise_min(halves(x), halves(y))))
ITEM(pair_maximum, u32, u32, joined(__builtin_elementwise_max(halves(x), halves(y))))
ITEM(pair_minimum_signed, u32, u32,
     joined(__builtin_elementwise_min(signed_halves(x), signed_halves(y))))
ITEM(pair_maximum_signed, u32, u32,
     joined(__builtin_elementwise_max(signed_halves(x), signed_halves(y))))
