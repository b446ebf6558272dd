// SPDX-License-Identifier: Apache-2.0
// What kernels are written in: fixed-size types, and the primitives of the target.
//
// Nothing of HIP or CUDA is included, so that the same bytes come out whatever is installed.
// amdgcn.h and nvptx.h give the same calls:
//
//   thread_id, block_id_x, _y, _z    blocks of threads are one-dimensional
//   lane_id, wave_id                 of the thread in its wave, of the wave in its block
//   block_sync                       what the block did to memory before is seen after it
//   keep_order                       the compiler moves nothing across it
//   exp2, log2                       the hardware's
//   to_f32(fp8x4), to_fp8(f32x4)     exact; to nearest even, NaN stays NaN, infinity and whatever
//                                    else is too large becomes the largest number
//   shuffle(x, lane)                 x of that lane of the wave
//   shuffle_xor<mask>(x)             x of lane_id() ^ mask
//   first_of_8(x)                    x of the first of the 8 neighbours
//   ballot(x)                        a bit for each lane of the wave, the lowest for lane 0
//   wave_sum(x), wave_scan(x)        the sum over the wave, and over lanes 0 to this one
//
// Matrix instructions of a wave, on tiles that lie spread over its lanes (Operand, Result):
//
//   multiply_add(a, b, c)            a b + c: bf16 and f16 of depth 16 and, the fastest,
//                                    kMatrixDepth; on AMD fp8 of depth 32
//   operand_row(i),                  where element i of the lane's Operand lies in its tile
//     operand_column<depth>(i)
//   result_row(i), result_column(i)  and of its Result
//   load_operand<Element, depth>     an Operand from a tile [16, depth] in shared memory, where
//     (at)                           at(row, column) points to an element. 16 bytes of a row, from
//                                    a multiple of 16 on, must lie together
//   load_transposed(at, operands)    several from a tile [depth, 16 times as many] of 16-bit
//                                    elements; on AMD a multiple of 4
//   transposed_column(i, r)          the tile's column that is row r of the one number i
//
// Copies from global to shared memory, past the registers:
//
//   copy_async(to, from)             copies kCopyBytes for each lane: from the lane's `from` to its
//                                    place after the wave's `to`, where lanes follow each other;
//                                    lanes that do not take part leave gaps
//   copy_commit()                    the copies since the last one are a group
//   copy_wait<groups, copies>()      until no more than the youngest `groups` are on their way, of
//                                    exactly `copies` copies each; block_sync then shows what has
//                                    come to the other waves
//
// All lanes of the wave take part in shuffles, ballots, sums, reductions and matrix instructions.
#pragma once

using i32 = int;
using i64 = long long;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using bf16 = __bf16;
using f16 = _Float16;
using f32 = float;
// The code of an 8-bit float: of e4m3fnuz on gfx942, of e4m3fn on every other target.
using fp8 = u8;

static_assert(sizeof(i32) == 4 && sizeof(i64) == 8 && sizeof(u16) == 2);

template <typename Element, u32 count>
using vector = Element __attribute__((ext_vector_type(count)));
using bf16x4 = vector<bf16, 4>;
using f16x4 = vector<f16, 4>;
using fp8x4 = vector<fp8, 4>;
using f32x4 = vector<f32, 4>;
using u32x4 = vector<u32, 4>;

// The threads that run in step: a wave, or a warp.
#if defined(__AMDGCN__)
constexpr u32 kWaveSize = 64;
#else
constexpr u32 kWaveSize = 32;
#endif

// What a lane holds of a, [16, depth], and of b transposed, [16, depth]: both lie alike.
template <typename Element, u32 depth>
using Operand = vector<Element, 16 * depth / kWaveSize>;
// What a lane holds of c and of the result, [16, 16].
using Result = vector<f32, 16 * 16 / kWaveSize>;

#define DEVICE __attribute__((device)) static inline
#define METHOD __attribute__((device)) inline  // of a class
#define SHARED __attribute__((shared)) static

#if defined(__AMDGCN__)
#include "amdgcn.h"
#elif defined(__NVPTX__)
#include "nvptx.h"
#else
#error "for amdgcn and nvptx targets only"
#endif

constexpr f32 kInfinity = __builtin_inff();
constexpr f32 kLog2E = 1.4426950408889634f;
constexpr f32 kLn2 = 0.6931471805599453f;

// Natural exponential and logarithm over the hardware's base 2; 0 for -inf, -inf for 0.
DEVICE f32 exp(f32 x) { return exp2(x * kLog2E); }
DEVICE f32 log(f32 x) { return log2(x) * kLn2; }

// Of a number and NaN the number.
DEVICE f32 max(f32 x, f32 y) { return __builtin_fmaxf(x, y); }
DEVICE f32 min(f32 x, f32 y) { return __builtin_fminf(x, y); }

// Exact to f32; from it rounded to nearest, ties to even. NaN stays NaN.
DEVICE f32x4 to_f32(bf16x4 x) { return __builtin_convertvector(x, f32x4); }
DEVICE f32x4 to_f32(f16x4 x) { return __builtin_convertvector(x, f32x4); }
DEVICE bf16x4 to_bf16(f32x4 x) { return __builtin_convertvector(x, bf16x4); }
DEVICE f16x4 to_f16(f32x4 x) { return __builtin_convertvector(x, f16x4); }

DEVICE f32 shuffle(f32 x, u32 lane) {
  return __builtin_bit_cast(f32, shuffle(__builtin_bit_cast(u32, x), lane));
}
template <u32 mask>
DEVICE f32 shuffle_xor(f32 x) {
  return __builtin_bit_cast(f32, shuffle_xor<mask>(__builtin_bit_cast(u32, x)));
}

// x of `lanes` neighbours put together (2, 4, .. kWaveSize); the same bits in each of them.
template <u32 lanes, typename Operation>
DEVICE f32 reduce(f32 x, Operation together) {
  if constexpr (lanes > 2) x = reduce<lanes / 2>(x, together);
  // By now neighbours in fours have the same, so that 7 does for 4: one instruction on AMD.
  return together(x, shuffle_xor<lanes == 8 ? 7 : lanes / 2>(x));
}
template <u32 lanes = kWaveSize>
DEVICE f32 reduce_max(f32 x) {
  return reduce<lanes>(x, [](f32 a, f32 b) { return max(a, b); });
}
template <u32 lanes = kWaveSize>
DEVICE f32 reduce_sum(f32 x) {
  return reduce<lanes>(x, [](f32 a, f32 b) { return a + b; });
}
