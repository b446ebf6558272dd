// SPDX-License-Identifier: Apache-2.0
// Vector moves: whole registers, single lanes, selections, swaps.
#include <utility>

#include "lanewise.h"

namespace emu {
namespace {

void move32(Wave &wave, const Instruction &i) {
  if (i.negate || i.absolute) return unary_f32([](float x) { return x; })(wave, i);
  Row space, result;
  std::memcpy(result.lane, read_u32(wave, i, 0, space), sizeof result);
  write_u32(wave, i, result);
}

void move64(Wave &wave, const Instruction &i) {
  WideRow space, result;
  std::memcpy(result.lane, read_u64(wave, i, 0, space), sizeof result);
  write_u64(wave, i, result);
}

void select_by_mask(Wave &wave, const Instruction &i) {  // v_cndmask_b32
  const uint64_t mask = read_scalar64(wave, i.source[2], 0);
  FloatRow a, b;
  const auto *x = reinterpret_cast<const uint32_t *>(read_f32(wave, i, 0, a, false));
  const auto *y = reinterpret_cast<const uint32_t *>(read_f32(wave, i, 1, b, false));
  Row result;
  for (int l = 0; l < lanes; l++) {
    const uint32_t keep = 0 - static_cast<uint32_t>(mask >> l & 1);
    result[l] = (y[l] & keep) | (x[l] & ~keep);
  }
  write_u32(wave, i, result);
}

void read_first_lane(Wave &wave, const Instruction &i) {
  Row space;
  const uint32_t *row = read_u32(wave, i, 0, space);
  const uint64_t active = wave.exec_mask();
  wave.s[i.destination] = row[active ? std::countr_zero(active) : 0];
}

void read_lane(Wave &wave, const Instruction &i) {
  const uint32_t lane = read_scalar(wave, i.source[1], i.literal) & 63;
  Row space;
  wave.s[i.destination] = read_raw(wave, i, 0, space)[lane];
}

void write_lane(Wave &wave, const Instruction &i) {
  const uint32_t lane = read_scalar(wave, i.source[1], i.literal) & 63;
  wave.row(destination_of(wave, i))[lane] = read_scalar(wave, i.source[0], i.literal);
}

void swap(Wave &wave, const Instruction &i) {
  uint32_t *a = wave.row(i.destination), *b = wave.row(i.source[0]);
  for (uint64_t active = wave.exec_mask(); active; active &= active - 1) {
    const int l = std::countr_zero(active);
    std::swap(a[l], b[l]);
  }
}

// Exchanges the odd rows of `distance` lanes of the destination with the even ones of the source.
template <int distance>
void permlane_swap(Wave &wave, const Instruction &i) {
  uint32_t *a = wave.row(i.destination), *b = wave.row(i.source[0]);
  const uint64_t active = wave.exec_mask();
  for (int l = 0; l < lanes; l++)
    if (!(l & distance) && active >> l & active >> (l + distance) & 1)
      std::swap(a[l + distance], b[l]);
}

// Bit n of `bitop` is the result for the three bits of n: source 0 is the highest.
uint32_t truth_table(uint8_t bitop, uint32_t x, uint32_t y, uint32_t z) {
  uint32_t result = 0;
  for (int n = 0; n < 8; n++)
    if (bitop >> n & 1) result |= (n & 4 ? x : ~x) & (n & 2 ? y : ~y) & (n & 1 ? z : ~z);
  return result;
}

void bitop32(Wave &wave, const Instruction &i) {
  Row a, b, c, result;
  const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
  const uint32_t *z = read_u32(wave, i, 2, c);
  for (int l = 0; l < lanes; l++) result[l] = truth_table(i.bitop, x[l], y[l], z[l]);
  write_u32(wave, i, result);
}

void bitop16(Wave &wave, const Instruction &i) {
  Row a, b, c, result;
  const uint32_t *x = read_u16(wave, i, 0, a), *y = read_u16(wave, i, 1, b);
  const uint32_t *z = read_u16(wave, i, 2, c);
  for (int l = 0; l < lanes; l++) result[l] = truth_table(i.bitop, x[l], y[l], z[l]);
  write_u16(wave, i, result, true);
}

// A step of the linear feedback shift register x^32 + x^7 + x^6 + x^2 + 1.
uint32_t pseudo_random(uint32_t x) { return x << 1 ^ (x >> 31 ? 0xc5 : 0); }

}  // namespace

void add_vector_move(Bindings &b) {
  const Handler copy = unary_u32([](uint32_t x) { return x; });
  b.add("v_nop", [](Wave &, const Instruction &) {});
  b.add("v_mov_b32", move32);
  b.add("v_mov_b64", move64);
  b.add("v_accvgpr_read_b32", copy);
  b.add("v_accvgpr_write_b32", copy);
  b.add("v_accvgpr_mov_b32", copy);
  b.add("v_cndmask_b32", select_by_mask);
  b.add("v_readfirstlane_b32", read_first_lane);
  b.add("v_readlane_b32", read_lane);
  b.add("v_writelane_b32", write_lane);
  b.add("v_swap_b32", swap);
  b.add("v_permlane16_swap_b32", permlane_swap<16>);
  b.add("v_permlane32_swap_b32", permlane_swap<32>);
  b.add("v_bitop3_b32", bitop32);
  b.add("v_bitop3_b16", bitop16);
  b.add("v_prng_b32", unary_u32([](uint32_t x) { return pseudo_random(x); }));
}

}  // namespace emu
