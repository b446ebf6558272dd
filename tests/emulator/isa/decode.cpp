// SPDX-License-Identifier: Apache-2.0
// Machine code to Instruction, one function per encoding.
#include <string_view>

#include "instruction.h"

namespace emu {
namespace {

constexpr uint32_t bits(uint32_t word, int low, int count) {
  return word >> low & ((1u << count) - 1);
}

class Decoder {
 public:
  Decoder(const uint32_t *words, size_t available, Arch arch)
      : words_(words), available_(available), arch_(arch) {
    for (size_t i = 0; i < available && i < 4; i++) out.raw[i] = words[i];
  }

  void run() {
    if (!available_) return;
    const uint32_t word = out.raw[0];
    if (word >> 30 == 2) return scalar(word);
    if (word >> 31 == 0) return vector_short(word);
    if (available_ < 2) return;
    out.bytes = 8;
    const uint32_t low = out.raw[1];
    if (word >> 23 == 0x1A7) return packed(word, low);
    switch (word >> 26) {
      case 0x30: return scalar_memory(word, low);
      case 0x34: return vector_long(word, low);
      case 0x36: return lds(word, low);
      case 0x37: return flat(word, low);
      case 0x38: return buffer(word, low);
      case 0x3A: lookup(Format::MTBUF, bits(word, 15, 4)); return;
    }
  }

  Instruction out;

 private:
  const uint32_t *words_;
  size_t available_;
  Arch arch_;

  bool lookup(Format format, unsigned number) {
    out.opcode = find_opcode(arch_, format, number);
    return out.opcode;
  }
  bool is(std::string_view mnemonic) const { return out.opcode->mnemonic == mnemonic; }
  bool is_like(std::string_view prefix) const {
    return std::string_view(out.opcode->mnemonic).starts_with(prefix);
  }
  void destination(uint16_t code) {
    out.destination = code;
    out.destination_dwords = out.opcode->dwords[0];
  }
  // Source k, whose width is that of the printed operand `printed`.
  void source(int k, uint16_t code, int printed) {
    out.source[k] = code;
    out.source_dwords[k] = out.opcode->dwords[printed];
    out.source_count = static_cast<uint8_t>(k + 1);
  }
  // A 32-bit literal follows a one-dword encoding.
  void take_literal() {
    if (available_ < 2) out.opcode = nullptr;
    out.literal = out.raw[1];
    out.bytes = 8;
  }
  void take_literal_if_used() {
    for (int k = 0; k < out.source_count; k++)
      if (out.source[k] == literal_operand) return take_literal();
  }

  void scalar(uint32_t word) {
    const uint16_t dst = bits(word, 16, 7);
    switch (word >> 23) {
      case 0x17D:
        if (!lookup(Format::SOP1, bits(word, 8, 8))) return;
        if (is("s_setpc_b64") || is("s_rfe_b64") || is("s_set_gpr_idx_idx"))
          return source(0, bits(word, 0, 8), 0);
        destination(dst);
        if (out.opcode->dwords[1]) source(0, bits(word, 0, 8), 1);
        return take_literal_if_used();
      case 0x17E:
        if (!lookup(Format::SOPC, bits(word, 16, 7))) return;
        source(0, bits(word, 0, 8), 0);
        source(1, bits(word, 8, 8), 1);
        if (is("s_set_gpr_idx_on")) out.immediate = bits(word, 8, 4), out.source_count = 1;
        return take_literal_if_used();
      case 0x17F:
        if (!lookup(Format::SOPP, bits(word, 16, 7))) return;
        out.immediate = static_cast<int16_t>(word);
        return;
    }
    if (word >> 28 == 0xB) {
      if (!lookup(Format::SOPK, bits(word, 23, 5))) return;
      destination(dst);
      out.immediate = static_cast<int16_t>(word);
      if (is("s_setreg_imm32_b32")) out.destination = no_operand, take_literal();
      return;
    }
    if (!lookup(Format::SOP2, bits(word, 23, 7))) return;
    destination(dst);
    source(0, bits(word, 0, 8), 1);
    source(1, bits(word, 8, 8), 2);
    take_literal_if_used();
  }

  void vector_short(uint32_t word) {
    const uint16_t src0 = bits(word, 0, 9);
    const uint16_t src1 = vgpr + bits(word, 9, 8), dst = vgpr + bits(word, 17, 8);
    const unsigned op = bits(word, 25, 6);
    if (op == 0x3F) {
      if (!lookup(Format::VOP1, bits(word, 9, 8))) return;
      destination(is("v_readfirstlane_b32") ? dst - vgpr : dst);
      if (out.opcode->dwords[1]) source(0, src0, 1);
      if (is("v_accvgpr_mov_b32")) out.destination += 256, out.source[0] += 256;
    } else if (op == 0x3E) {
      if (!lookup(Format::VOPC, bits(word, 17, 8))) return;
      out.destination = vcc;
      out.destination_dwords = 2;
      source(0, src0, 1);
      source(1, src1, 2);
    } else {
      if (!lookup(Format::VOP2, op)) return;
      destination(dst);
      if (vop2_special(src0, src1)) return;
    }
    if (src0 == 249) return sdwa();
    if (src0 == 250) return dpp();
    take_literal_if_used();
  }

  // The sources of VOP2; true when the encoding is complete.
  bool vop2_special(uint16_t src0, uint16_t src1) {
    const bool carry_out = has_carry_out();
    const int first = carry_out ? 2 : 1;  // vdst, vcc, src0, src1 are printed
    source(0, src0, first);
    source(1, src1, first + 1);
    if (carry_out) out.scalar_destination = vcc;
    if (is("v_cndmask_b32") || is("v_addc_co_u32") || is("v_subb_co_u32") ||
        is("v_subbrev_co_u32")) {
      source(2, vcc, 1);
      out.source_dwords[2] = 2;
      out.source_dwords[0] = out.source_dwords[1] = 1;
    }
    if (is("v_fmamk_f32") || is("v_madmk_f16")) {  // D = S0 * K + S1
      source(1, literal_operand, 1);
      source(2, src1, 1);
      return take_literal(), true;
    }
    if (is("v_fmaak_f32") || is("v_madak_f16")) {  // D = S0 * S1 + K
      source(2, literal_operand, 1);
      return take_literal(), true;
    }
    return false;
  }

  void sdwa() {
    const uint32_t word = out.raw[1];
    out.sdwa = true;
    out.bytes = 8;
    out.source[0] = bits(word, 0, 8) + (bits(word, 23, 1) ? 0 : vgpr);
    if (out.opcode->format == Format::VOPC) {
      if (bits(word, 15, 1)) out.destination = bits(word, 8, 7);
    } else {
      out.destination_select = bits(word, 8, 3);
      out.destination_unused = bits(word, 11, 2);
      out.output_modifier = bits(word, 14, 2);
    }
    out.clamp = bits(word, 13, 1);
    out.select[0] = bits(word, 16, 3);
    out.sign_extend[0] = bits(word, 19, 1);
    out.negate = bits(word, 20, 1);
    out.absolute = bits(word, 21, 1);
    if (out.source_count < 2) return;
    if (bits(word, 31, 1)) out.source[1] -= vgpr;
    out.select[1] = bits(word, 24, 3);
    out.sign_extend[1] = bits(word, 27, 1);
    out.negate |= bits(word, 28, 1) << 1;
    out.absolute |= bits(word, 29, 1) << 1;
  }

  void dpp() {
    const uint32_t word = out.raw[1];
    out.dpp = true;
    out.bytes = 8;
    out.source[0] = vgpr + bits(word, 0, 8);
    out.dpp_control = bits(word, 8, 9);
    out.bound_control = bits(word, 19, 1);
    out.negate = bits(word, 20, 1) | bits(word, 22, 1) << 1;
    out.absolute = bits(word, 21, 1) | bits(word, 23, 1) << 1;
    out.bank_mask = bits(word, 24, 4);
    out.row_mask = bits(word, 28, 4);
  }

  void vector_long(uint32_t word, uint32_t low) {
    const unsigned op = bits(word, 16, 10);
    const uint16_t src[3] = {static_cast<uint16_t>(bits(low, 0, 9)),
                             static_cast<uint16_t>(bits(low, 9, 9)),
                             static_cast<uint16_t>(bits(low, 18, 9))};
    out.output_modifier = bits(low, 27, 2);
    out.negate = bits(low, 29, 3);
    out.clamp = bits(word, 15, 1);
    if (op < 256) {
      if (!lookup(Format::VOPC, op)) return;
      out.destination = bits(word, 0, 7);
      out.destination_dwords = 2;
      source(0, src[0], 1);
      source(1, src[1], 2);
      out.absolute = bits(word, 8, 3);
      out.op_sel = bits(word, 11, 4);
      return;
    }
    if (!lookup(Format::VOP3, op)) return;
    destination(vgpr + bits(word, 0, 8));
    if (has_scalar_destination()) {
      out.scalar_destination = bits(word, 8, 7);
      const int count =
          is_like("v_add_co") || is_like("v_sub_co") || is_like("v_subrev_co") ? 2 : 3;
      for (int k = 0; k < count; k++) source(k, src[k], 0);
      const bool wide = is("v_div_scale_f64");
      const bool narrow = is("v_div_scale_f32");
      for (int k = 0; k < count; k++) out.source_dwords[k] = wide || (k == 2 && !narrow) ? 2 : 1;
      return;
    }
    out.absolute = bits(word, 8, 3);
    out.op_sel = bits(word, 11, 4);
    for (int k = 0; k < 3 && out.opcode->dwords[k + 1]; k++) source(k, src[k], k + 1);
    if (is_like("v_bitop3")) bitop(word, low);
    if (is("v_readlane_b32") || is("v_readfirstlane_b32")) out.destination -= vgpr;
  }

  // The truth table takes the place of the modifiers: omod, abs, neg.
  void bitop(uint32_t word, uint32_t low) {
    out.bitop =
        static_cast<uint8_t>(bits(low, 27, 2) << 6 | bits(word, 8, 3) << 3 | bits(low, 29, 3));
    out.output_modifier = out.absolute = out.negate = 0;
  }

  bool has_carry_out() const {
    return is_like("v_add_co") || is_like("v_sub_co") || is_like("v_subrev_co") ||
           is_like("v_addc_co") || is_like("v_subb_co") || is_like("v_subbrev_co");
  }
  bool has_scalar_destination() const {
    return has_carry_out() || is_like("v_div_scale") || is("v_mad_u64_u32") || is("v_mad_i64_i32");
  }

  void packed(uint32_t word, uint32_t low) {
    if (arch_ == Arch::gfx950 && word >> 16 == 0xD3AC) return scaled_matrix(word, low);
    if (!lookup(Format::VOP3P, bits(word, 16, 7))) return;
    destination(vgpr + bits(word, 0, 8));
    for (int k = 0; k < 3 && out.opcode->dwords[k + 1]; k++) source(k, bits(low, 9 * k, 9), k + 1);
    if (is("v_accvgpr_read_b32")) {
      if (out.source[0] >= vgpr) out.source[0] += 256;
      return;
    }
    if (is("v_accvgpr_write_b32")) return void(out.destination += 256);
    if (out.opcode->family == Family::matrix) return matrix(word, low);
    out.clamp = bits(word, 15, 1);
    out.op_sel = bits(word, 11, 3);
    out.op_sel_high = bits(low, 27, 2) | bits(word, 14, 1) << 2;
    out.negate_high = bits(word, 8, 3);
    out.negate = bits(low, 29, 3);
  }

  void matrix(uint32_t word, uint32_t low) {
    out.cbsz = bits(word, 8, 3);
    out.abid = bits(word, 11, 4);
    out.blgp = bits(low, 29, 3);
    for (int k = 0; k < 2; k++)
      if (bits(low, 27 + k, 1) && out.source[k] >= vgpr) out.source[k] += 256;
    if (!bits(word, 15, 1)) return;
    out.destination += 256;
    if (out.source[2] >= vgpr && !is_like("v_smfmac")) out.source[2] += 256;
  }

  // A prefix with the two scales, then a matrix instruction.
  void scaled_matrix(uint32_t prefix, uint32_t prefix_low) {
    if (available_ < 4) return;
    out.bytes = 16;
    const uint32_t word = out.raw[2], low = out.raw[3];
    if (word >> 23 != 0x1A7 || !lookup(Format::VOP3PX2, bits(word, 16, 7))) return;
    destination(vgpr + bits(word, 0, 8));
    for (int k = 0; k < 3; k++) source(k, bits(low, 9 * k, 9), k + 1);
    matrix(word, low);
    out.scale[0] = bits(prefix_low, 0, 9);
    out.scale[1] = bits(prefix_low, 9, 9);
    out.op_sel = bits(prefix, 11, 2);
    out.op_sel_high = bits(prefix_low, 27, 2);
  }

  void scalar_memory(uint32_t word, uint32_t low) {
    if (!lookup(Format::SMEM, bits(word, 18, 8))) return;
    out.queue = Queue::scalar_memory;
    destination(bits(word, 6, 7));
    out.scalar_address = bits(word, 0, 6) << 1;
    out.sc0 = bits(word, 16, 1);
    const bool scalar_offset_enable = bits(word, 14, 1);
    if (bits(word, 17, 1)) {
      out.immediate = static_cast<int32_t>(low << 11) >> 11;
      if (scalar_offset_enable) out.scalar_offset = bits(low, 25, 7);
    } else {
      out.scalar_offset = scalar_offset_enable ? bits(low, 25, 7) : bits(low, 0, 7);
    }
  }

  void lds(uint32_t word, uint32_t low) {
    if (!lookup(Format::DS, bits(word, 17, 8))) return;
    out.queue = Queue::lds;
    out.gds = bits(word, 16, 1);
    out.offset0 = bits(word, 0, 8);
    out.offset1 = bits(word, 8, 8);
    out.immediate = bits(word, 0, 16);
    const uint16_t base = bits(word, 25, 1) ? agpr : vgpr;
    out.address = vgpr + bits(low, 0, 8);
    out.data = base + bits(low, 8, 8);
    out.data2 = base + bits(low, 16, 8);
    out.destination = base + bits(low, 24, 8);
  }

  void flat(uint32_t word, uint32_t low) {
    const unsigned segment = bits(word, 14, 2);
    if (segment == 3) return;
    const Format format = segment == 0   ? Format::FLAT
                          : segment == 1 ? Format::SCRATCH
                                         : Format::GLOBAL;
    if (!lookup(format, bits(word, 18, 7))) return;
    out.queue = format == Format::FLAT ? Queue::flat : Queue::vector_memory;
    out.sc0 = bits(word, 16, 1);
    out.sc1 = bits(word, 25, 1);
    out.immediate = segment == 0 ? bits(word, 0, 12) : static_cast<int32_t>(word << 19) >> 19;
    const uint16_t base = bits(low, 23, 1) ? agpr : vgpr;
    out.address = vgpr + bits(low, 0, 8);
    out.data = base + bits(low, 8, 8);
    out.destination = base + bits(low, 24, 8);
    const uint16_t scalar = bits(low, 16, 7);
    if (scalar != 0x7F && segment != 0) out.scalar_address = scalar;
    if (segment == 1 && !bits(word, 13, 1)) out.address = no_operand;
    out.address_dwords = segment == 1 || out.scalar_address != no_operand ? 1 : 2;
  }

  void buffer(uint32_t word, uint32_t low) {
    if (!lookup(Format::MUBUF, bits(word, 18, 7))) return;
    out.queue = Queue::vector_memory;
    out.immediate = bits(word, 0, 12);
    out.offset_enable = bits(word, 12, 1);
    out.index_enable = bits(word, 13, 1);
    out.sc0 = bits(word, 14, 1);
    out.sc1 = bits(word, 15, 1);
    out.to_lds = bits(word, 16, 1);
    out.data = (bits(low, 23, 1) ? agpr : vgpr) + bits(low, 8, 8);
    out.destination = out.data;
    out.resource = bits(low, 16, 5) << 2;
    out.scalar_offset = bits(low, 24, 8);
    out.address_dwords = out.offset_enable + out.index_enable;
    if (out.address_dwords) out.address = vgpr + bits(low, 0, 8);
  }
};

}  // namespace

Instruction decode(const uint32_t *words, size_t available, Arch arch) {
  Decoder decoder(words, available, arch);
  decoder.run();
  Instruction &out = decoder.out;
  if (out.opcode) note_registers(out);
  return out;
}

}  // namespace emu
