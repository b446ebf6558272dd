// SPDX-License-Identifier: Apache-2.0
// The text of a report: what happened, and everything that says where.
#include "error.h"
#include "wave.h"

namespace emu {
namespace {

std::string place(const Wave &wave, int lane) {
  const Workgroup &group = *wave.workgroup;
  std::string text =
      format("\n  kernel     %s (%s)\n  workgroup  (%u, %u, %u)\n  wave       %d",
             group.launch->kernel->name.c_str(), group.launch->code->arch_name.c_str(), group.id[0],
             group.id[1], group.id[2], wave.id);
  if (lane >= 0) text += format("\n  lane       %d", lane);
  if (!wave.current) return text;
  const Instruction &i = *wave.current;
  text +=
      format("\n  pc         0x%llx (kernel + 0x%llx)", static_cast<unsigned long long>(i.offset),
             static_cast<unsigned long long>(i.offset - group.launch->kernel->entry));
  text += "\n  code       " + disassemble(i) + "   //";
  for (int k = 0; k < i.bytes / 4; k++) text += format(" %08x", i.raw[k]);
  return text;
}

}  // namespace

void fault(const Wave &wave, const std::string &what, int lane) {
  throw Error(what + place(wave, lane));
}

void fault_at(const Wave &wave, const std::string &what, int lane, uint64_t address) {
  std::string text = what + place(wave, lane);
  const Workgroup &group = *wave.workgroup;
  if (auto *p = reinterpret_cast<const uint8_t *>(address); group.in_lds(p))
    throw Error(text + format("\n  address    LDS byte 0x%tx of %zu", p - group.lds.data(),
                              group.lds.size()));
  text += format("\n  address    0x%llx, ", static_cast<unsigned long long>(address));
  throw Error(text + group.launch->memory.describe(address));
}

}  // namespace emu
