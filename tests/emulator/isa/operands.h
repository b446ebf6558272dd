// SPDX-License-Identifier: Apache-2.0
// How instructions read and write registers: inline constants, modifiers, DPP, SDWA, EXEC.
//
// A vector source is handed out as a pointer to 64 lanes: the register itself when nothing changes
// it on the way, else the caller's `space`.
#pragma once
#include "numeric.h"
#include "wave.h"

namespace emu {

using Row = Lanes<uint32_t>;
using FloatRow = Lanes<float>;
using WideRow = Lanes<uint64_t>;

// Scalar sources: SGPRs, inline constants, the literal, the status registers.
uint32_t read_scalar(const Wave &wave, unsigned operand, uint32_t literal, bool half = false);
uint64_t read_scalar64(const Wave &wave, unsigned operand, uint32_t literal,
                       bool is_double = false);

// The source lane of each lane under a DPP control, 255 for none.
const uint8_t *dpp_sources(const Wave &wave, uint16_t control);

// The lanes that a vector instruction writes.
uint64_t written_lanes(const Wave &wave, const Instruction &i);

// A register operand with the relative index of s_set_gpr_idx_on added.
unsigned relative(const Wave &wave, unsigned operand, int slot);

template <class T>
const T *broadcast(Lanes<T> &space, T value) {
  for (int l = 0; l < lanes; l++) space[l] = value;
  return space.lane;
}

// Dword `dword` of source k as it is, apart from DPP.
inline const uint32_t *read_raw(Wave &wave, const Instruction &i, int k, Row &space, int dword = 0,
                                bool half = false) {
  unsigned operand = i.source[k];
  if (operand < vgpr) {
    if (dword && operand < sgpr_end) operand += dword;
    return broadcast(space, read_scalar(wave, operand, i.literal, half));
  }
  if (wave.mode & mode_gpr_index) [[unlikely]]
    operand = relative(wave, operand, k);
  const uint32_t *row = wave.row(operand + dword);
  if (!i.dpp || k != 0) [[likely]]
    return row;
  const uint8_t *from = dpp_sources(wave, i.dpp_control);
  const uint64_t active = wave.exec_mask();
  for (int l = 0; l < lanes; l++)
    space[l] = from[l] < lanes && active >> from[l] & 1 ? row[from[l]] : 0;
  return space.lane;
}

const uint32_t *select_part(const uint32_t *row, const Instruction &i, int k, Row &space);  // SDWA

inline const uint32_t *read_u32(Wave &wave, const Instruction &i, int k, Row &space) {
  const uint32_t *row = read_raw(wave, i, k, space);
  return i.sdwa && k < 2 && i.select[k] != 6 ? select_part(row, i, k, space) : row;
}

// A float with abs and neg applied and, unless the mode keeps them, denormals flushed.
inline const float *read_f32(Wave &wave, const Instruction &i, int k, FloatRow &space,
                             bool flush = true) {
  Row &bits = reinterpret_cast<Row &>(space);
  const uint32_t *row = read_u32(wave, i, k, bits);
  const bool absolute = i.absolute >> k & 1, negate = i.negate >> k & 1;
  flush = flush && !(wave.mode & mode_f32_input_denormals);
  if (!absolute && !negate && !flush) return reinterpret_cast<const float *>(row);
  const uint32_t keep = absolute ? 0x7fffffffu : ~0u, flip = negate ? 0x80000000u : 0;
  if (flush)
    for (int l = 0; l < lanes; l++) bits[l] = flush_denormal((row[l] & keep) ^ flip);
  else
    for (int l = 0; l < lanes; l++) bits[l] = (row[l] & keep) ^ flip;
  return space.lane;
}

// A 16-bit source, zero extended; floats get their modifiers.
const uint32_t *read_u16(Wave &wave, const Instruction &i, int k, Row &space,
                         bool is_float = false);
const float *read_f16(Wave &wave, const Instruction &i, int k, FloatRow &space);
const uint64_t *read_u64(Wave &wave, const Instruction &i, int k, WideRow &space);
const double *read_f64(Wave &wave, const Instruction &i, int k, Lanes<double> &space);

inline void store_row(Wave &wave, unsigned operand, const uint32_t *value, uint64_t mask) {
  uint32_t *row = wave.row(operand);
  if (mask == ~0ull) {
    std::memcpy(row, value, sizeof(Row));
    return;
  }
  const uint32_t *keep = wave.lane_mask(mask);
  for (int l = 0; l < lanes; l++) row[l] = (value[l] & keep[l]) | (row[l] & ~keep[l]);
}

// The destination operand of a vector instruction.
inline unsigned destination_of(const Wave &wave, const Instruction &i) {
  return wave.mode & mode_gpr_index ? relative(wave, i.destination, 3) : i.destination;
}

void place_part(Wave &wave, const Instruction &i, Row &value);  // SDWA

inline void write_u32(Wave &wave, const Instruction &i, Row &value) {
  if (i.sdwa && i.destination_select != 6) [[unlikely]]
    place_part(wave, i, value);
  const uint64_t mask = i.dpp ? written_lanes(wave, i) : wave.exec_mask();
  store_row(wave, destination_of(wave, i), value.lane, mask);
}

template <class T>
T apply_output_modifier(T value, const Instruction &i) {
  if (i.output_modifier == 1) value *= 2;
  if (i.output_modifier == 2) value *= 4;
  if (i.output_modifier == 3) value /= 2;
  if (i.clamp) value = value > 0 ? (value < 1 ? value : T(1)) : T(0);
  return value;
}

inline void write_f32(Wave &wave, const Instruction &i, FloatRow &value, bool flush = true) {
  if (i.output_modifier || i.clamp) [[unlikely]]
    for (int l = 0; l < lanes; l++) value[l] = apply_output_modifier(value[l], i);
  Row &bits = reinterpret_cast<Row &>(value);
  if (flush && !(wave.mode & mode_f32_output_denormals))
    for (int l = 0; l < lanes; l++) bits[l] = flush_denormal(bits[l]);
  write_u32(wave, i, bits);
}

// Which half a 16-bit result goes to, and what becomes of the other one: most GFX9 instructions
// clear it, a few keep it.
void write_u16(Wave &wave, const Instruction &i, Row &value, bool keep_other_half = false);
void write_f16(Wave &wave, const Instruction &i, const Lanes<double> &value,
               bool keep_other_half = false);
void write_u64(Wave &wave, const Instruction &i, const WideRow &value);
void write_f64(Wave &wave, const Instruction &i, Lanes<double> &value);

inline Round half_rounding(const Wave &wave) { return static_cast<Round>(wave.mode >> 2 & 3); }

}  // namespace emu
