// SPDX-License-Identifier: Apache-2.0
// Checked access to memory, LDS and scratch.
#include "access.h"

#include <algorithm>

#include "error.h"

namespace emu {
namespace {

const char *verb(Access access) { return access == Access::read ? "load" : "store"; }

bool permits(const VisibleAllocation &allocation, Access access) {
  return access == Access::read
             ? allocation.readable
             : allocation.writable && (allocation.readable || access == Access::write);
}

VisibleAllocation *allocation_of(Wave &wave, int lane, uint64_t address, unsigned bytes,
                                 Access access) {
  VisibleAllocation *last = wave.last_allocation;
  if (last && address >= last->begin && address + bytes <= last->end && permits(*last, access))
      [[likely]]
    return last;
  MemoryView &memory = wave.workgroup->launch->memory;
  // Extents may overlap: the first one that permits the access will do.
  VisibleAllocation *found = memory.find(address, bytes);
  for (auto &other : memory.allocations) {
    if (found && permits(*found, access)) break;
    if (address >= other->begin && address + bytes <= other->end && permits(*other, access))
      found = other.get();
  }
  if (!found)
    fault_at(wave,
             format("%s of %u bytes outside the memory this launch may touch", verb(access), bytes),
             lane, address);
  if (!permits(*found, access))
    fault_at(
        wave,
        format("%s of %u bytes is not allowed in '%s'", verb(access), bytes, found->name.c_str()),
        lane, address);
  return wave.last_allocation = found;
}

void count_traffic(Wave &wave, VisibleAllocation &allocation, uint64_t offset, unsigned bytes,
                   Access access) {
  TouchedBytes &touched = *allocation.touched;
  TrafficCount::Entry &entry = wave.workgroup->traffic->of(&allocation);
  if (access != Access::write) {
    entry.read += bytes;
    std::memset(touched.read.data() + offset, 1, bytes);
  }
  if (access != Access::read) {
    entry.written += bytes;
    std::memset(touched.written.data() + offset, 1, bytes);
  }
  constexpr int shift = TouchedBytes::page_shift;
  for (uint64_t page = offset >> shift; page <= (offset + bytes - 1) >> shift; page++) {
    uint8_t &seen = touched.page_seen.data()[page];
    if (seen) continue;
    seen = 1;
    entry.pages.push_back(static_cast<uint32_t>(page));
  }
}

void check_initialised(Wave &wave, int lane, VisibleAllocation &allocation, uint64_t address,
                       unsigned bytes, Access access) {
  uint8_t *written =
      allocation.initialised->data() + allocation.initialised_offset + (address - allocation.begin);
  if (access != Access::read) return void(std::memset(written, 1, bytes));
  for (unsigned n = 0; n < bytes; n++)
    if (!written[n])
      fault_at(wave, format("load of %u bytes of memory that nothing has written", bytes), lane,
               address + n);
}

// What is known about a byte that a wave touches.
void check_stamp(Wave &wave, int lane, const uint8_t *p, RaceShadow::Stamp stamp) {
  RaceShadow &races = wave.workgroup->races;
  if (!races.unordered(stamp)) return;
  const bool in_lds = wave.workgroup->in_lds(p);
  const char *why = races.violation(wave, stamp, in_lds ? Queue::lds : Queue::vector_memory);
  if (!why) return;
  const RaceShadow::Writer &writer = races.writer(stamp);
  std::string text = why;
  text += format("\n  written    by wave %d at pc 0x%llx: ", writer.wave,
                 static_cast<unsigned long long>(writer.instruction->offset));
  text += disassemble(*writer.instruction);
  fault_at(wave, text, lane, reinterpret_cast<uint64_t>(p));
}

bool is_scratch(const Wave &wave, const uint8_t *p) {
  return wave.scratch && p >= wave.scratch &&
         p < wave.scratch + uint64_t{wave.scratch_per_lane} * lanes;
}

RaceShadow::Stamp newest(const RaceShadow::Stamp *stamps, unsigned count) {
  RaceShadow::Stamp newest = 0;
  for (unsigned n = 0; n < count; n++) newest = std::max(newest, stamps[n]);
  return newest;
}

// Applies `visit` to the stamps of the bytes at p, in runs; `known`: only those written before.
template <class F>
void for_stamps(Wave &wave, const uint8_t *p, unsigned bytes, bool known, F visit) {
  Workgroup &group = *wave.workgroup;
  if (group.in_lds(p))
    return visit(group.races.lds(static_cast<uint32_t>(p - group.lds.data())), bytes);
  if (is_scratch(wave, p)) return;
  for (uint64_t address = reinterpret_cast<uint64_t>(p); bytes;) {
    const uint64_t rest = RaceShadow::page_bytes - address % RaceShadow::page_bytes;
    const unsigned run = static_cast<unsigned>(std::min<uint64_t>(bytes, rest));
    RaceShadow::Stamp *stamps =
        known ? group.races.memory_if_written(address) : group.races.memory(address);
    if (stamps) visit(stamps, run);
    address += run;
    bytes -= run;
  }
}

}  // namespace

uint8_t *memory_at(Wave &wave, int lane, uint64_t address, unsigned bytes, Access access) {
  const Checks &checks = wave.workgroup->launch->checks;
  auto *p = reinterpret_cast<uint8_t *>(address);
  if (!checks.bounds) return p;
  VisibleAllocation *allocation = allocation_of(wave, lane, address, bytes, access);
  if (allocation->touched)
    count_traffic(wave, *allocation, address - allocation->begin, bytes, access);
  if (checks.uninitialised && allocation->initialised)
    check_initialised(wave, lane, *allocation, address, bytes, access);
  return p;
}

uint8_t *lds_at(Wave &wave, int lane, uint32_t address, unsigned bytes) {
  std::vector<uint8_t> &lds = wave.workgroup->lds;
  if (uint64_t{address} + bytes > lds.size()) [[unlikely]]
    fault(wave,
          format("access of %u bytes at LDS address 0x%x is outside the %zu bytes of the workgroup",
                 bytes, address, lds.size()),
          lane);
  return lds.data() + address;
}

uint8_t *scratch_at(Wave &wave, int lane, uint32_t offset, unsigned bytes) {
  if (uint64_t{offset} + bytes > wave.scratch_per_lane)
    fault(wave,
          format("access of %u bytes at scratch offset 0x%x is outside the %u bytes of a work-item",
                 bytes, offset, wave.scratch_per_lane),
          lane);
  return wave.scratch + uint64_t{wave.scratch_per_lane} * static_cast<unsigned>(lane) + offset;
}

RaceShadow::Stamp begin_write(Wave &wave) {
  if (!wave.workgroup->launch->checks.any_shadow()) return 0;
  return wave.workgroup->races.begin_write(wave, *wave.current, wave.operation,
                                           wave.current->queue);
}

void note_read(Wave &wave, int lane, const uint8_t *p, unsigned bytes) {
  const Checks &checks = wave.workgroup->launch->checks;
  if (!checks.any_shadow()) return;
  RaceShadow &races = wave.workgroup->races;
  const bool in_lds = wave.workgroup->in_lds(p);
  for_stamps(wave, p, bytes, true, [&](const RaceShadow::Stamp *stamps, unsigned run) {
    if (checks.uninitialised && in_lds &&
        races.never_written(*std::min_element(stamps, stamps + run)))
      fault_at(wave, format("load of %u bytes of LDS of which nothing has written some", bytes),
               lane, reinterpret_cast<uint64_t>(p));
    if (!checks.waits || !races.unordered(newest(stamps, run))) return;
    for (unsigned n = 0; n < run; n++) check_stamp(wave, lane, p + n, stamps[n]);
  });
}

void note_write(Wave &wave, int lane, const uint8_t *p, unsigned bytes, const void *data,
                RaceShadow::Stamp stamp) {
  const Checks &checks = wave.workgroup->launch->checks;
  if (!checks.any_shadow()) return;
  RaceShadow &races = wave.workgroup->races;
  unsigned done = 0;
  for_stamps(wave, p, bytes, false, [&](RaceShadow::Stamp *stamps, unsigned run) {
    // Two waves that store the same value where they overlap do no harm.
    if (checks.strict && races.unordered(newest(stamps, run)))
      for (unsigned n = 0; n < run; n++)
        if (!data || p[done + n] != static_cast<const uint8_t *>(data)[done + n])
          check_stamp(wave, lane, p + done + n, stamps[n]);
    std::fill(stamps, stamps + run, stamp);
    done += run;
  });
}

}  // namespace emu
