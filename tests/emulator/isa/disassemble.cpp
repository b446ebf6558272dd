// SPDX-License-Identifier: Apache-2.0
// The text of an instruction for reports: mnemonic and operands much as LLVM prints them.
#include "error.h"
#include "instruction.h"
#include "memory_operation.h"

namespace emu {
namespace {

std::string range(const char *prefix, unsigned first, unsigned dwords) {
  if (dwords > 1) return format("%s[%u:%u]", prefix, first, first + dwords - 1);
  return format("%s%u", prefix, first);
}

std::string operand_text(unsigned operand, unsigned dwords, uint32_t literal) {
  static const char *const floats[] = {"0.5",  "-0.5", "1.0",  "-1.0",      "2.0",
                                       "-2.0", "4.0",  "-4.0", "0.15915494"};
  if (operand == no_operand) return "off";
  if (operand >= agpr) return range("a", operand - agpr, dwords);
  if (operand >= vgpr) return range("v", operand - vgpr, dwords);
  if (operand < 102) return range("s", operand, dwords);
  if (operand >= 128 && operand <= 192) return std::to_string(operand - 128);
  if (operand > 192 && operand <= 208) return std::to_string(192 - static_cast<int>(operand));
  if (operand >= 240 && operand <= 248) return floats[operand - 240];
  switch (operand) {
    case vcc: return dwords > 1 ? "vcc" : "vcc_lo";
    case vcc + 1: return "vcc_hi";
    case m0: return "m0";
    case exec: return dwords > 1 ? "exec" : "exec_lo";
    case exec + 1: return "exec_hi";
    case 235: return "src_shared_base";
    case 237: return "src_private_base";
    case 251: return "vccz";
    case 252: return "execz";
    case 253: return "scc";
    case literal_operand: return format("0x%x", literal);
  }
  return format("r%u", operand);
}

class Text {
 public:
  explicit Text(const Instruction &i) : i_(i), text_(i.opcode->mnemonic) {}
  void operand(const std::string &text) {
    text_ += (first_ ? " " : ", ") + text;
    first_ = false;
  }
  void operand(unsigned code, unsigned dwords) { operand(operand_text(code, dwords, i_.literal)); }
  void modifier(const std::string &text) { text_ += " " + text; }
  std::string take() { return std::move(text_); }

 private:
  const Instruction &i_;
  std::string text_;
  bool first_ = true;
};

void vector_operands(Text &text, const Instruction &i) {
  if (i.destination != no_operand) text.operand(i.destination, i.destination_dwords);
  if (i.scalar_destination != no_operand) text.operand(i.scalar_destination, 2);
  for (int k = 0; k < i.source_count; k++) {
    std::string source = operand_text(i.source[k], i.source_dwords[k], i.literal);
    if (i.absolute >> k & 1) source = "|" + source + "|";
    if (i.negate >> k & 1) source = "-" + source;
    text.operand(source);
  }
  for (unsigned scale : i.scale)
    if (scale != no_operand) text.operand(scale, 1);
  if (i.dpp)
    text.modifier(format("dpp_ctrl:0x%x row_mask:0x%x bank_mask:0x%x%s", i.dpp_control, i.row_mask,
                         i.bank_mask, i.bound_control ? " bound_ctrl:0" : ""));
  if (i.sdwa)
    text.modifier(format("dst_sel:%d dst_unused:%d src0_sel:%d src1_sel:%d", i.destination_select,
                         i.destination_unused, i.select[0], i.select[1]));
  if (i.op_sel) text.modifier(format("op_sel:0x%x", i.op_sel));
  if (i.opcode->format == Format::VOP3P && i.opcode->family != Family::matrix)
    text.modifier(format("op_sel_hi:0x%x", i.op_sel_high));
  if (i.bitop) text.modifier(format("bitop3:0x%x", i.bitop));
  if (i.cbsz) text.modifier(format("cbsz:%d", i.cbsz));
  if (i.abid) text.modifier(format("abid:%d", i.abid));
  if (i.blgp) text.modifier(format("blgp:%d", i.blgp));
  if (i.output_modifier) text.modifier(format("omod:%d", i.output_modifier));
  if (i.clamp) text.modifier("clamp");
}

void memory_operands(Text &text, const Instruction &i) {
  const MemoryOperation *memory = i.opcode->memory;
  if (!memory) return;
  if (i.delivers.count) text.operand(i.delivers.first, i.delivers.count);
  if (memory->uses_address && (i.address != no_operand || i.opcode->format != Format::DS))
    text.operand(i.address, i.address_dwords);
  if (memory->data_dwords) text.operand(i.data, memory->data_dwords);
  if (memory->data2_dwords) text.operand(i.data2, memory->data2_dwords);
  if (i.opcode->format == Format::MUBUF) {
    text.operand(i.resource, 4);
    text.operand(i.scalar_offset, 1);
    if (i.index_enable) text.modifier("idxen");
    if (i.offset_enable) text.modifier("offen");
  } else if (i.opcode->format != Format::DS && i.opcode->format != Format::FLAT) {
    text.operand(i.scalar_address, i.opcode->format == Format::SCRATCH ? 1 : 2);
  }
  if (memory->two)
    text.modifier(format("offset0:%d offset1:%d", i.offset0, i.offset1));
  else if (i.immediate)
    text.modifier(format("offset:%d", i.immediate));
  if (i.sc0) text.modifier("sc0");
  if (i.sc1) text.modifier("sc1");
  if (i.to_lds) text.modifier("lds");
}

void control_operands(Text &text, const Instruction &i) {
  const std::string mnemonic = i.opcode->mnemonic;
  if (mnemonic == "s_waitcnt") {
    const unsigned counts = static_cast<unsigned>(i.immediate);
    const unsigned vector = (counts & 15) | (counts >> 14 & 3) << 4, lgkm = counts >> 8 & 15;
    if (vector != 63) text.modifier(format("vmcnt(%u)", vector));
    if (lgkm != 15) text.modifier(format("lgkmcnt(%u)", lgkm));
  } else if (mnemonic != "s_endpgm" && mnemonic != "s_barrier") {
    text.operand(std::to_string(i.immediate));
  }
}

}  // namespace

std::string disassemble(const Instruction &i) {
  if (!i.opcode) return format("unknown encoding %08x %08x", i.raw[0], i.raw[1]);
  Text text(i);
  switch (i.opcode->format) {
    case Format::SOPP: control_operands(text, i); break;
    case Format::SOPK:
      if (i.destination != no_operand) text.operand(i.destination, i.destination_dwords);
      text.operand(format("0x%x", i.immediate & 0xffff));
      if (i.bytes == 8) text.operand(format("0x%x", i.literal));
      break;
    case Format::SMEM:
      if (!i.destination_dwords) break;
      text.operand(i.destination, i.destination_dwords);
      text.operand(i.scalar_address, i.uses[0].count);
      if (i.scalar_offset != no_operand) text.operand(i.scalar_offset, 1);
      text.operand(format("0x%x", i.immediate));
      break;
    case Format::DS:
    case Format::MUBUF:
    case Format::MTBUF:
    case Format::FLAT:
    case Format::SCRATCH:
    case Format::GLOBAL: memory_operands(text, i); break;
    default: vector_operands(text, i);
  }
  return text.take();
}

}  // namespace emu
