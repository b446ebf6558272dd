// SPDX-License-Identifier: Apache-2.0
// What instructions do to their operands on the way: SDWA selections, signs, clamps, op_sel. In
// assembly, since the compiler emits these as it pleases.
#include "floats.h"

#ifdef __AMDGCN__
#define ASSEMBLY2(Type, text, a, b)                                \
  [&] {                                                            \
    Type result;                                                   \
    asm(text : "=v"(result) : "v"(a), "v"(b));                     \
    return result;                                                 \
  }()
#define ASSEMBLY3(Type, text, a, b, c)                             \
  [&] {                                                            \
    Type result;                                                   \
    asm(text : "=v"(result) : "v"(a), "v"(b), "v"(c));             \
    return result;                                                 \
  }()
#define INTO(old, text, a, b)                                      \
  [&] {                                                            \
    u32 result = old;                                              \
    asm(text : "+v"(result) : "v"(a), "v"(b));                     \
    return result;                                                 \
  }()
#else
#define ASSEMBLY2(Type, text, a, b) Type{}
#define ASSEMBLY3(Type, text, a, b, c) Type{}
#define INTO(old, text, a, b) 0
#endif

DEVICE u32 word(u32 x, u32 index) { return x >> 16 * index & 0xffff; }
DEVICE u32 byte(u32 x, u32 index) { return x >> 8 * index & 0xff; }
DEVICE u32 word_of(f16 x) { return bit_cast<u16>(x); }
DEVICE f16 half_in(u32 x, u32 index) { return bit_cast<f16>((u16)word(x, index)); }
DEVICE u32 with_high(u32 x, u32 high) { return word(x, 0) | one_nan(high, 0x7c00, 0x7e00) << 16; }
DEVICE u32 high_one_nan(u32 x) { return with_high(x, word(x, 1)); }

// The selected part of the sources; the result into a part of the destination, whose rest is
// cleared, filled with the sign, or kept.
ITEM(sdwa_pad, u32, u32,
     PICK(INTO(z, "v_add_u32_sdwa %0, %1, %2 dst_sel:BYTE_2 dst_unused:UNUSED_PAD "
                  "src0_sel:BYTE_1 src1_sel:WORD_1", x, y),
          ((byte(x, 1) + word(y, 1)) & 0xff) << 16))
ITEM(sdwa_sign, u32, u32,
     PICK(INTO(z, "v_add_u32_sdwa %0, %1, %2 dst_sel:BYTE_1 dst_unused:UNUSED_SEXT "
                  "src0_sel:DWORD src1_sel:BYTE_3", x, y),
          (u32)(i32)(i8)(x + byte(y, 3)) << 8))
ITEM(sdwa_keep, u32, u32,
     PICK(INTO(z, "v_sub_u32_sdwa %0, %1, %2 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE "
                  "src0_sel:WORD_0 src1_sel:BYTE_0", x, y),
          word(z, 0) | (word(x, 0) - byte(y, 0)) << 16))
ITEM(sdwa_signed_source, u32, u32,
     PICK(INTO(z, "v_max_i32_sdwa %0, sext(%1), sext(%2) dst_sel:DWORD dst_unused:UNUSED_PAD "
                  "src0_sel:BYTE_3 src1_sel:WORD_1", x, y),
          (i8)byte(x, 3) > (i16)word(y, 1) ? (i32)(i8)byte(x, 3) : (i32)(i16)word(y, 1)))
ITEM(sdwa_half, u32, u32,
     PICK(high_one_nan(INTO(z, "v_add_f16_sdwa %0, -%1, |%2| dst_sel:WORD_1 "
                               "dst_unused:UNUSED_PRESERVE src0_sel:WORD_1 src1_sel:WORD_0", x, y)),
          with_high(z, word_of(-half_in(x, 1) + half_in(y & 0x7fff, 0)))))

ITEM(signs, f32, f32,
     PICK(ASSEMBLY3(f32, "v_fma_f32 %0, -|%1|, %2, -%3", x, y, z),
          __builtin_fmaf(-__builtin_fabsf(x), y, -z)))
ITEM(clamp, f32, f32,
     PICK(ASSEMBLY2(f32, "v_add_f32 %0, %1, %2 clamp", x, y),
          x + y > 1.0f ? 1.0f : x + y > 0.0f ? x + y : 0.0f))
ITEM(clamp_unsigned, u32, u32,
     PICK(ASSEMBLY2(u32, "v_add_u32 %0, %1, %2 clamp", x, y), x + y < x ? ~0u : x + y))
ITEM(clamp_signed, i32, i32,
     PICK(ASSEMBLY2(i32, "v_sub_i32 %0, %1, %2 clamp", x, y),
          __builtin_elementwise_sub_sat(x, y)))

// op_sel and op_sel_hi say which half of each source the low and the high result take.
ITEM(packed_halves, u32, u32,
     PICK(ASSEMBLY3(u32, "v_pk_mad_u16 %0, %1, %2, %3 op_sel:[1,0,1] op_sel_hi:[0,0,1]", x, y, z),
          ((word(x, 1) * word(y, 0) + word(z, 1)) & 0xffff) |
              (word(x, 0) * word(y, 0) + word(z, 1)) << 16))
ITEM(packed_signs, u32, u32,
     PICK(packed(__builtin_bit_cast(
              f16x2, ASSEMBLY2(u32, "v_pk_add_f16 %0, %1, %2 op_sel:[0,1] op_sel_hi:[1,0] "
                                    "neg_lo:[1,0] neg_hi:[0,1]", x, y))),
          packed(f16x2{(f16)(-half_in(x, 0) + half_in(y, 1)),
                       (f16)(half_in(x, 1) - half_in(y, 0))})))
ITEM(mixed, u32, f32,
     PICK(ASSEMBLY3(f32, "v_fma_mix_f32 %0, %1, -%2, |%3| op_sel:[1,0,0] op_sel_hi:[1,0,0]", x, y,
                    z),
          __builtin_fmaf((f32)half_in(x, 1), -bit_cast<f32>(y), __builtin_fabsf(bit_cast<f32>(z)))))
ITEM(mixed_to_high, u32, u32,
     PICK(high_one_nan(INTO(z, "v_fma_mixhi_f16 %0, %1, %2, 1.0 op_sel_hi:[1,1,0]", x, y)),
          with_high(z, word_of(fused_half(half_in(x, 0), half_in(y, 0), (f16)1)))))

// Two floats at once, from either half of register pairs.
DEVICE f32x2 pair_of(f32 a, f32 b) { return {a, b}; }
DEVICE f32 folded(f32x2 pair) { return pair.x - 2 * pair.y; }
ITEM(packed_floats, f32, f32,
     PICK(folded(ASSEMBLY2(f32x2, "v_pk_mul_f32 %0, %1, %2 op_sel:[1,0] op_sel_hi:[0,0] "
                                  "neg_hi:[1,0]", pair_of(x, y), pair_of(z, x))),
          y * z - 2 * (-x * z)))
