// SPDX-License-Identifier: Apache-2.0
// The less frequent ways of reading and writing registers.
#include "operands.h"

#include <array>
#include <memory>
#include <mutex>

#include "error.h"

namespace emu {
namespace {

// The inline floating point constants 240..248: 0.5, -0.5, 1, -1, 2, -2, 4, -4, 1/(2 pi).
constexpr uint32_t float_constants[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                                        0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};
constexpr uint16_t half_constants[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                                       0xc000, 0x4400, 0xc400, 0x3118};
constexpr uint64_t double_constants[] = {
    0x3fe0000000000000, 0xbfe0000000000000, 0x3ff0000000000000,
    0xbff0000000000000, 0x4000000000000000, 0xc000000000000000,
    0x4010000000000000, 0xc010000000000000, 0x3fc45f306dc9c882};

bool is_integer_constant(unsigned operand) { return operand >= 128 && operand <= 208; }
int integer_constant(unsigned operand) {
  return operand <= 192 ? static_cast<int>(operand) - 128 : 192 - static_cast<int>(operand);
}
bool is_float_constant(unsigned operand) { return operand >= 240 && operand <= 248; }

using DppTable = std::array<uint8_t, lanes>;

// Source lane under a DPP control: -1 none, -2 the control does not exist.
int dpp_source(int control, int lane) {
  const int row = lane & ~15, in_row = lane & 15, amount = control & 15;
  if (control < 0x100) return (lane & ~3) | (control >> (2 * (lane & 3)) & 3);  // quad_perm
  if (control > 0x100 && control <= 0x10f) return in_row + amount < 16 ? lane + amount : -1;
  if (control > 0x110 && control <= 0x11f) return in_row - amount >= 0 ? lane - amount : -1;
  if (control > 0x120 && control <= 0x12f) return row + ((in_row - amount) & 15);
  switch (control) {
    case 0x130: return lane < 63 ? lane + 1 : -1;                    // wave_shl
    case 0x134: return (lane + 1) & 63;                              // wave_rol
    case 0x138: return lane - 1;                                     // wave_shr
    case 0x13c: return (lane - 1) & 63;                              // wave_ror
    case 0x140: return row + 15 - in_row;                            // row_mirror
    case 0x141: return (lane & ~7) + 7 - (lane & 7);                 // row_half_mirror
    case 0x142: return row ? row - 1 : -1;                           // row_bcast15
    case 0x143: return lane >= 32 ? 31 : -1;                         // row_bcast31
  }
  return control >= 0x150 && control <= 0x15f ? row + amount : -2;   // row_newbcast
}

struct DppTables {
  std::array<DppTable, 512> sources;
  std::array<bool, 512> exists;
  DppTables() {
    for (int control = 0; control < 512; control++) {
      exists[control] = dpp_source(control, 0) != -2;
      for (int lane = 0; lane < lanes; lane++)
        sources[control][lane] = static_cast<uint8_t>(dpp_source(control, lane));
    }
  }
};

uint32_t part(uint32_t value, int select, bool sign_extend) {
  if (select < 4) {
    const uint32_t byte = value >> (8 * select) & 0xff;
    return sign_extend ? static_cast<uint32_t>(static_cast<int8_t>(byte)) : byte;
  }
  if (select < 6) {
    const uint32_t word = value >> (16 * (select - 4)) & 0xffff;
    return sign_extend ? static_cast<uint32_t>(static_cast<int16_t>(word)) : word;
  }
  return value;
}

}  // namespace

uint32_t read_scalar(const Wave &wave, unsigned operand, uint32_t literal, bool half) {
  if (operand < sgpr_end) return wave.s[operand];
  if (is_integer_constant(operand)) return static_cast<uint32_t>(integer_constant(operand));
  if (is_float_constant(operand))
    return half ? half_constants[operand - 240] : float_constants[operand - 240];
  switch (operand) {
    case 235:
    case 237: return 0;  // the apertures' low halves
    case 251: return wave.pair(vcc) == 0;
    case 252: return wave.exec_mask() == 0;
    case 253: return wave.scc;
    case literal_operand: return literal;
  }
  fault(wave, format("scalar operand %u is not implemented", operand));
}

uint64_t read_scalar64(const Wave &wave, unsigned operand, uint32_t literal, bool is_double) {
  if (operand < sgpr_end) return wave.pair(operand);
  if (is_integer_constant(operand))
    return static_cast<uint64_t>(int64_t{integer_constant(operand)});
  if (is_float_constant(operand)) return double_constants[operand - 240];
  switch (operand) {
    case 235: return shared_aperture;
    case 236: return shared_aperture | 0xffffffff;
    case 237: return private_aperture;
    case 238: return private_aperture | 0xffffffff;
    case literal_operand: return is_double ? uint64_t{literal} << 32 : literal;
  }
  return read_scalar(wave, operand, literal);
}

const uint8_t *dpp_sources(const Wave &wave, uint16_t control) {
  static const DppTables tables;
  if (!tables.exists[control]) fault(wave, format("DPP control 0x%x does not exist", control));
  return tables.sources[control].data();
}

uint64_t written_lanes(const Wave &wave, const Instruction &i) {
  const uint64_t active = wave.exec_mask();
  if (!i.dpp) return active;
  const uint8_t *from = dpp_sources(wave, i.dpp_control);
  uint64_t mask = 0;
  for (int l = 0; l < lanes; l++) {
    const bool selected = i.row_mask >> (l >> 4) & i.bank_mask >> (l >> 2 & 3) & 1;
    const bool valid = from[l] < lanes && active >> from[l] & 1;
    if (selected && (valid || i.bound_control)) mask |= 1ull << l;
  }
  return active & mask;
}

unsigned relative(const Wave &wave, unsigned operand, int slot) {
  const uint32_t index = wave.s[m0];
  if (!(wave.mode & mode_gpr_index) || operand < vgpr || operand >= agpr ||
      !(index >> (12 + slot) & 1))
    return operand;
  const unsigned moved = operand + (index & 0xff);
  if (moved >= agpr) fault(wave, "relative VGPR index out of range");
  return moved;
}

const uint32_t *select_part(const uint32_t *row, const Instruction &i, int k, Row &space) {
  for (int l = 0; l < lanes; l++) space[l] = part(row[l], i.select[k], i.sign_extend[k]);
  return space.lane;
}

void place_part(Wave &wave, const Instruction &i, Row &value) {
  const uint32_t *old = wave.row(destination_of(wave, i));
  const bool byte = i.destination_select < 4;
  const int shift = byte ? 8 * i.destination_select : 16 * (i.destination_select - 4);
  const uint32_t field = byte ? 0xff : 0xffff;
  const int top = shift + (byte ? 8 : 16);
  for (int l = 0; l < lanes; l++) {
    uint32_t placed = (value[l] & field) << shift;
    if (i.destination_unused == 2) placed |= old[l] & ~(field << shift);
    const bool negative = value[l] >> (byte ? 7 : 15) & 1;
    if (i.destination_unused == 1 && negative && top < 32) placed |= ~0u << top;
    value[l] = placed;
  }
}

const uint32_t *read_u16(Wave &wave, const Instruction &i, int k, Row &space, bool is_float) {
  const uint32_t *row = read_raw(wave, i, k, space, 0, true);
  const bool long_form = i.opcode->format == Format::VOP3 ||
                         (i.opcode->format == Format::VOPC && i.raw[0] >> 26 == 0x34);
  const int shift = long_form && i.op_sel >> k & 1 ? 16 : 0;
  if (i.sdwa && k < 2)
    for (int l = 0; l < lanes; l++) space[l] = part(row[l], i.select[k], i.sign_extend[k]) & 0xffff;
  else
    for (int l = 0; l < lanes; l++) space[l] = row[l] >> shift & 0xffff;
  if (!is_float) return space.lane;
  const uint32_t keep = i.absolute >> k & 1 ? 0x7fff : 0xffff,
                 flip = i.negate >> k & 1 ? 0x8000 : 0;
  const bool flush = !(wave.mode & mode_f64_input_denormals);
  for (int l = 0; l < lanes; l++) {
    uint32_t half = (space[l] & keep) ^ flip;
    if (flush && !(half & 0x7c00)) half &= 0x8000;
    space[l] = half;
  }
  return space.lane;
}

const float *read_f16(Wave &wave, const Instruction &i, int k, FloatRow &space) {
  Row halves;
  const uint32_t *row = read_u16(wave, i, k, halves, true);
  for (int l = 0; l < lanes; l++) space[l] = half_to_float(row[l]);
  return space.lane;
}

const uint64_t *read_u64(Wave &wave, const Instruction &i, int k, WideRow &space) {
  if (i.source[k] < vgpr) return broadcast(space, read_scalar64(wave, i.source[k], i.literal));
  Row low_space, high_space;
  const uint32_t *low = read_raw(wave, i, k, low_space),
                 *high = read_raw(wave, i, k, high_space, 1);
  for (int l = 0; l < lanes; l++) space[l] = uint64_t{high[l]} << 32 | low[l];
  return space.lane;
}

const double *read_f64(Wave &wave, const Instruction &i, int k, Lanes<double> &space) {
  WideRow &bits = reinterpret_cast<WideRow &>(space);
  if (i.source[k] < vgpr)
    broadcast(bits, read_scalar64(wave, i.source[k], i.literal, true));
  else
    read_u64(wave, i, k, bits);
  constexpr uint64_t sign = 1ull << 63, exponent = 0x7ffull << 52;
  const uint64_t keep = i.absolute >> k & 1 ? ~sign : ~0ull, flip = i.negate >> k & 1 ? sign : 0;
  const bool flush = !(wave.mode & mode_f64_input_denormals);
  for (int l = 0; l < lanes; l++) {
    uint64_t value = (bits[l] & keep) ^ flip;
    if (flush && !(value & exponent)) value &= sign;
    bits[l] = value;
  }
  return space.lane;
}

void write_u16(Wave &wave, const Instruction &i, Row &value, bool keep_other_half) {
  const uint32_t *old = wave.row(destination_of(wave, i));
  if (!i.sdwa) {
    const bool high = i.opcode->format == Format::VOP3 && i.op_sel & 8;
    for (int l = 0; l < lanes; l++) {
      const uint32_t half = value[l] & 0xffff;
      value[l] = high ? half << 16 | (old[l] & 0xffff)
                      : half | (keep_other_half ? old[l] & 0xffff0000u : 0);
    }
  }
  write_u32(wave, i, value);
}

void write_f16(Wave &wave, const Instruction &i, const Lanes<double> &value, bool keep_other_half) {
  Row halves;
  const bool flush = !(wave.mode & mode_f64_output_denormals);
  for (int l = 0; l < lanes; l++) {
    halves[l] = double_to_half(apply_output_modifier(value[l], i), half_rounding(wave));
    if (flush && !(halves[l] & 0x7c00)) halves[l] &= 0x8000;
  }
  write_u16(wave, i, halves, keep_other_half);
}

void write_u64(Wave &wave, const Instruction &i, const WideRow &value) {
  Row low, high;
  for (int l = 0; l < lanes; l++) {
    low[l] = static_cast<uint32_t>(value[l]);
    high[l] = static_cast<uint32_t>(value[l] >> 32);
  }
  const uint64_t mask = written_lanes(wave, i);
  const unsigned operand = destination_of(wave, i);
  store_row(wave, operand, low.lane, mask);
  store_row(wave, operand + 1, high.lane, mask);
}

void write_f64(Wave &wave, const Instruction &i, Lanes<double> &value) {
  const bool flush = !(wave.mode & mode_f64_output_denormals);
  for (int l = 0; l < lanes; l++) {
    value[l] = apply_output_modifier(value[l], i);
    if (flush && std::fpclassify(value[l]) == FP_SUBNORMAL) value[l] = std::copysign(0.0, value[l]);
  }
  write_u64(wave, i, reinterpret_cast<const WideRow &>(value));
}

}  // namespace emu
