// SPDX-License-Identifier: Apache-2.0
// Primitives on gfx942 and gfx950. Included by device.h.
#pragma once

// Launched with `threads` work-items, at least `waves` waves to a SIMD. Without the bound 1024
// work-items would be assumed and registers spill.
#define KERNEL(threads, waves)                                              \
  extern "C" __attribute__((global))                                        \
  __attribute__((amdgpu_flat_work_group_size(threads, threads)))            \
  __attribute__((amdgpu_waves_per_eu(waves))) void

DEVICE u32 thread_id() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_id_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_id_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEVICE u32 block_id_z() { return __builtin_amdgcn_workgroup_id_z(); }
DEVICE u32 lane_id() { return thread_id() % kWaveSize; }
// In a scalar register: the compiler does not see that all lanes have the same.
DEVICE u32 wave_id() { return __builtin_amdgcn_readfirstlane(thread_id() / kWaveSize); }

// The only barrier there is to use: s_barrier alone waits for no access to LDS or memory, the
// fences are what emits s_waitcnt.
DEVICE void block_sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

DEVICE void keep_order() { __builtin_amdgcn_sched_barrier(0); }

// The hardware's, about one unit in the last place.
DEVICE f32 exp2(f32 x) { return __builtin_amdgcn_exp2f(x); }
DEVICE f32 log2(f32 x) { return __builtin_amdgcn_logf(x); }
DEVICE f32 reciprocal(f32 x) { return __builtin_amdgcn_rcpf(x); }

DEVICE u32 shuffle(u32 x, u32 lane) { return __builtin_amdgcn_ds_bpermute(lane * 4, x); }

// A data-parallel primitive (DPP): the operand of a vector instruction comes from another lane.
template <u32 control>
DEVICE u32 from_lane(u32 x) {
  return __builtin_amdgcn_mov_dpp(x, control, 0xf, 0xf, true);
}

DEVICE u32 first_of_8(u32 x) {
  constexpr u32 kFirstOf4 = 0, kShift4 = 0x114, kOddQuads = 0xa;
  x = from_lane<kFirstOf4>(x);
  return __builtin_amdgcn_update_dpp(x, x, kShift4, 0xf, kOddQuads, false);
}

template <u32 mask>
DEVICE u32 shuffle_xor(u32 x) {
  static_assert(mask < kWaveSize);
  if constexpr (mask >= 16) {
    return shuffle(x, lane_id() ^ mask);
  } else {
    constexpr u32 kHalfMirror = 0x141;  // lane ^ 7
    constexpr u32 kRotate8 = 0x128;     // lane ^ 8, of 16 lanes
    constexpr u32 m = mask & 4 ? ~mask & 3 : mask & 3;
    constexpr u32 kPermuteQuad = (0 ^ m) | (1 ^ m) << 2 | (2 ^ m) << 4 | (3 ^ m) << 6;
    if constexpr ((mask & 4) != 0) x = from_lane<kHalfMirror>(x);
    if constexpr ((mask & 8) != 0) x = from_lane<kRotate8>(x);
    if constexpr (m != 0) x = from_lane<kPermuteQuad>(x);
    return x;
  }
}

DEVICE u64 ballot(bool x) { return __builtin_amdgcn_ballot_w64(x); }
// Within rows of 16 lanes, then from the last lane of a row to the next row, or two.
DEVICE u32 wave_scan(u32 x) {
  constexpr u32 kShift = 0x110, kLastOf16 = 0x142, kLastOf32 = 0x143;
  x += from_lane<kShift + 1>(x);
  x += from_lane<kShift + 2>(x);
  x += from_lane<kShift + 4>(x);
  x += from_lane<kShift + 8>(x);
  x += __builtin_amdgcn_update_dpp(0, x, kLastOf16, 0xa, 0xf, false);
  x += __builtin_amdgcn_update_dpp(0, x, kLastOf32, 0xc, 0xf, false);
  return x;
}
DEVICE u32 wave_sum(u32 x) { return __builtin_amdgcn_readlane(wave_scan(x), kWaveSize - 1); }

DEVICE f32x4 to_f32(fp8x4 x) {
  const u32 codes = __builtin_bit_cast(u32, x);
  const auto low = __builtin_amdgcn_cvt_pk_f32_fp8(codes, false);
  const auto high = __builtin_amdgcn_cvt_pk_f32_fp8(codes, true);
  return f32x4{low[0], low[1], high[0], high[1]};
}

#ifdef __gfx942__
constexpr f32 kMaxFp8 = 240.0f;
#else
constexpr f32 kMaxFp8 = 448.0f;
#endif

// The conversion makes NaN of what is too large. The median would make a number of NaN.
DEVICE f32 saturate_fp8(f32 x) {
  return x != x ? x : __builtin_amdgcn_fmed3f(x, -kMaxFp8, kMaxFp8);
}
DEVICE fp8x4 to_fp8(f32x4 x) {
  u32 codes = 0;
  codes = __builtin_amdgcn_cvt_pk_fp8_f32(saturate_fp8(x[0]), saturate_fp8(x[1]), codes, false);
  codes = __builtin_amdgcn_cvt_pk_fp8_f32(saturate_fp8(x[2]), saturate_fp8(x[3]), codes, true);
  return __builtin_bit_cast(fp8x4, codes);
}

// --- Matrix instructions ---

#ifdef __gfx942__
constexpr u32 kMatrixDepth = 16;
#else
constexpr u32 kMatrixDepth = 32;
#endif

// All elements of a lane's operand follow each other in one row.
DEVICE u32 operand_row(u32) { return lane_id() % 16; }
template <u32 depth>
DEVICE u32 operand_column(u32 i) {
  return lane_id() / 16 * (depth / 4) + i;
}
DEVICE u32 result_row(u32 i) { return lane_id() / 16 * 4 + i; }
DEVICE u32 result_column(u32) { return lane_id() % 16; }

template <typename Element, u32 depth, typename At>
DEVICE Operand<Element, depth> load_operand(At at) {
  using Part = Operand<Element, depth>;
  return *reinterpret_cast<const Part*>(at(operand_row(0), operand_column<depth>(0)));
}

#ifdef __gfx950__
DEVICE u32 transposed_column(u32 operand, u32 row) { return operand * 16 + row; }
#else
// 4 neighbours in a row, which one load brings, go to 4 operands.
DEVICE u32 transposed_column(u32 operand, u32 row) {
  return operand / 4 * 64 + row * 4 + operand % 4;
}
#endif

template <typename Element, u32 size, u32 count, typename At>
DEVICE void load_transposed(At at, vector<Element, size> (&operands)[count]) {
  static_assert(sizeof(Element) == 2 && count % 4 == 0);
  constexpr u32 kDepth = size * 4;
  using Four = vector<Element, 4>;
#ifdef __gfx950__
  // Of 4 rows of 16, that 16 lanes point to piece by piece, each of these gets a column.
  using Lds = __attribute__((address_space(3))) vector<short, 4>;
#pragma unroll
  for (u32 n = 0; n < count; ++n) {
#pragma unroll
    for (u32 i = 0; i < size; i += 4) {
      const u32 row = operand_column<kDepth>(i) + lane_id() % 16 / 4;
      const u32 column = n * 16 + lane_id() % 4 * 4;
      const auto x =
          __builtin_bit_cast(Four, __builtin_amdgcn_ds_read_tr16_b64_v4i16((Lds*)at(row, column)));
      for (u32 j = 0; j < 4; ++j) operands[n][i + j] = x[j];
    }
  }
#else
#pragma unroll
  for (u32 n = 0; n < count; n += 4) {
#pragma unroll
    for (u32 i = 0; i < size; ++i) {
      const auto* place = at(operand_column<kDepth>(i), transposed_column(n, operand_row(i)));
      const Four x = *reinterpret_cast<const Four*>(place);
      for (u32 j = 0; j < 4; ++j) operands[n + j][i] = x[j];
    }
  }
#endif
}

DEVICE Result multiply_add(Operand<bf16, 16> a, Operand<bf16, 16> b, Result c) {
  using Bits = vector<short, 4>;
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(Bits, a),
                                                   __builtin_bit_cast(Bits, b), c, 0, 0, 0);
}
DEVICE Result multiply_add(Operand<f16, 16> a, Operand<f16, 16> b, Result c) {
  return __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
}
DEVICE Result multiply_add(Operand<fp8, 32> a, Operand<fp8, 32> b, Result c) {
  return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(__builtin_bit_cast(long, a),
                                                    __builtin_bit_cast(long, b), c, 0, 0, 0);
}
#ifdef __gfx950__
DEVICE Result multiply_add(Operand<bf16, 32> a, Operand<bf16, 32> b, Result c) {
  return __builtin_amdgcn_mfma_f32_16x16x32_bf16(a, b, c, 0, 0, 0);
}
DEVICE Result multiply_add(Operand<f16, 32> a, Operand<f16, 32> b, Result c) {
  return __builtin_amdgcn_mfma_f32_16x16x32_f16(a, b, c, 0, 0, 0);
}
#endif

// --- Asynchronous copies ---

#ifdef __gfx942__
constexpr u32 kCopyBytes = 4;
#define COPY_INSTRUCTION "global_load_lds_dword"
#else
constexpr u32 kCopyBytes = 16;
#define COPY_INSTRUCTION "global_load_lds_dwordx4"
#endif

// Not the compiler's builtin: with that every fence, so every block_sync, would wait for all
// copies. The instruction takes the wave's address from m0, one cycle after that is written.
DEVICE void copy_async(void* wave_destination, const void* source) {
  // The low half of a pointer to LDS is the address there.
  const u32 address = static_cast<u32>(reinterpret_cast<u64>(wave_destination));
  asm volatile("s_nop 0\n\t" COPY_INSTRUCTION " %1, off"
               :
               : "{m0}"(__builtin_amdgcn_readfirstlane(address)), "v"(source)
               : "memory");
}
DEVICE void copy_commit() {}
// The counter is one of all accesses to memory, in order: others only make it wait longer.
template <u32 groups, u32 copies>
DEVICE void copy_wait() {
  static_assert(groups * copies < 64);
  asm volatile("s_waitcnt vmcnt(%0)" : : "n"(groups * copies) : "memory");
}
