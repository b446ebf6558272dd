// SPDX-License-Identifier: Apache-2.0
// Who wrote what, and who may see it.
#include "races.h"

#include "memory_operation.h"
#include "wave.h"

namespace emu {
namespace {

// Atomics, and the loads and stores with which compilers implement atomic ones.
bool is_atomic(const Instruction &instruction) {
  const bool atomic = instruction.opcode->memory->kind == MemoryOperation::atomic;
  return atomic || instruction.sc0 || instruction.sc1;
}

bool writes_lds(const Instruction &instruction) {
  return instruction.queue == Queue::lds || instruction.to_lds ||
         instruction.opcode->memory->to_lds;
}

}  // namespace

void RaceShadow::begin_workgroup(size_t lds_bytes) {
  if (lds_.size() < lds_bytes) lds_.resize(lds_bytes);
  pages_.clear();
  last_page_ = ~0ull;
  writers_.clear();
  if (next_ > 0xf0000000u) {  // start the numbers over long before they wrap
    std::fill(lds_.begin(), lds_.end(), 0);
    next_ = 1;
  }
  first_unordered_ = workgroup_start_ = next_;
}

RaceShadow::Stamp RaceShadow::begin_write(const Wave &wave, const Instruction &instruction,
                                          uint32_t number, Queue queue) {
  writers_.push_back({wave.id, queue, number, &instruction, false});
  return next_++;
}

bool RaceShadow::visible_after_barrier(const Workgroup &workgroup, const Writer &writer) const {
  const WaitState &waits = workgroup.waves[static_cast<size_t>(writer.wave)]->waits;
  if (waits.complete(writer.queue, writer.number)) return true;
  const Launch &launch = *workgroup.launch;
  // The waves of a workgroup share a compute unit and its L1 cache, which serves them in order, so
  // compilers emit no vmcnt before a barrier; except when workgroups may be split over two units.
  if (writer.queue == Queue::vector_memory && !writes_lds(*writer.instruction))
    return !launch.kernel->splits_workgroups();
  return writer.queue == Queue::lds && !launch.checks.strict &&
         waits.lds_waited_since(writer.number);
}

void RaceShadow::barrier(const Workgroup &workgroup) {
  for (Writer &writer : writers_) writer.visible |= visible_after_barrier(workgroup, writer);
  while (!writers_.empty() && writers_.front().visible) {
    writers_.pop_front();
    first_unordered_++;
  }
}

RaceShadow::Stamp *RaceShadow::memory_if_written(uint64_t address) {
  if (pages_.empty()) return nullptr;
  const uint64_t page = address / page_bytes;
  if (page != last_page_) {
    auto found = pages_.find(page);
    if (found == pages_.end()) return nullptr;
    last_page_ = page;
    last_page_data_ = found->second.get();
  }
  return &last_page_data_->bytes[address % page_bytes];
}

RaceShadow::Stamp *RaceShadow::memory(uint64_t address) {
  if (Stamp *known = memory_if_written(address)) return known;
  const uint64_t page = address / page_bytes;
  last_page_data_ = (pages_[page] = std::make_unique<Page>()).get();
  last_page_ = page;
  return &last_page_data_->bytes[address % page_bytes];
}

const char *RaceShadow::violation(const Wave &wave, Stamp stamp, Queue reading_queue) const {
  const Writer &from = writer(stamp);
  if (from.visible) return nullptr;
  if (from.wave == wave.id) {
    // A wave sees its own operations in order, except data on its way from memory to LDS.
    const bool lds_by_memory = from.queue == Queue::vector_memory && reading_queue == Queue::lds;
    if (!lds_by_memory || wave.waits.complete(from.queue, from.number)) return nullptr;
    return "touches LDS that this wave's own load has yet to fill; an s_waitcnt vmcnt is missing";
  }
  if (is_atomic(*from.instruction) && is_atomic(*wave.current)) return nullptr;
  const Wave &writer_wave = *wave.workgroup->waves[static_cast<size_t>(from.wave)];
  const bool needs_wait = from.queue != Queue::vector_memory || writes_lds(*from.instruction);
  if (needs_wait && !writer_wave.waits.complete(from.queue, from.number))
    return "touches what another wave wrote without waiting for the write (s_waitcnt)";
  return "touches what another wave wrote with no s_barrier in between";
}

}  // namespace emu
