// SPDX-License-Identifier: Apache-2.0
// The outstanding operations of a wave.
#include "waits.h"

#include "memory_operation.h"

namespace emu {
namespace {

// A counter has six (vmcnt) or four (lgkmcnt) bits; when it is full, issuing waits.
constexpr size_t vector_memory_limit = 63, lgkm_limit = 15;

// How many instructions after a load kernels of AITER use its result without any s_waitcnt.
uint32_t presumed_latency(Queue queue) {
  switch (queue) {
    case Queue::lds: return 8;
    case Queue::scalar_memory: return 100;
    default: return 200;
  }
}

bool overlap(Registers a, Registers b) {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}

}  // namespace

void WaitState::Line::pop() {
  if (++head_ < 64) return;
  operations_.erase(operations_.begin(), operations_.begin() + static_cast<long>(head_));
  head_ = 0;
}

void WaitState::reset() {
  for (Line &line : lines_) line.clear();
  pending_ = {};
  next_number_ = 1;
  lds_wait_number_ = 0;
  outstanding_ = 0;
  stored_wait_states_ = 0;
}

bool WaitState::pending(Registers r, bool strict) const {
  for (unsigned i = r.first; i < r.first + r.count && i < register_end; i++) {
    if (!(pending_[i / 64] >> (i % 64) & 1)) continue;
    if (strict || now_ - issued_at_[i] < presumed_latency(owner_[i])) return true;
  }
  return false;
}

// Loads of one queue write in order, so the later one wins.
bool WaitState::in_order_overwrite(const Instruction &instruction) const {
  if (instruction.queue != Queue::vector_memory && instruction.queue != Queue::lds) return false;
  const Registers r = instruction.delivers;
  for (unsigned i = r.first; i < r.first + r.count; i++)
    if ((pending_[i / 64] >> (i % 64) & 1) && owner_[i] != instruction.queue) return false;
  return !instruction.opcode->memory->half_register;
}

const char *WaitState::violation(const Instruction &instruction, bool strict) const {
  if (stored_wait_states_ && instruction.queue == Queue::none &&
      instruction.destination != no_operand &&
      overlap({instruction.destination, instruction.destination_dwords}, stored_))
    return "overwrites the data of a store wider than 64 bits within two wait states";
  if (!outstanding_) return nullptr;
  for (const Registers &use : instruction.uses) {
    if (use.first == no_operand) break;
    if (pending(use, strict))
      return "touches a register whose load is outstanding; an s_waitcnt is missing or too weak";
  }
  if (instruction.delivers.count && pending(instruction.delivers, strict) &&
      !in_order_overwrite(instruction))
    return "loads into a register whose earlier load is outstanding";
  return nullptr;
}

uint32_t WaitState::issue(const Instruction &instruction) {
  Operation operation;
  operation.number = next_number_++;
  operation.delivers = instruction.delivers;
  Line &line = queue_of(instruction.queue);
  line.push(operation);
  outstanding_++;
  if (instruction.queue == Queue::vector_memory && line.size() > vector_memory_limit) retire(line);
  if (instruction.queue == Queue::lds && line.size() > lgkm_limit) retire(line);
  const Registers r = instruction.delivers;
  for (unsigned i = r.first; i < r.first + r.count && i < register_end; i++) {
    pending_[i / 64] |= 1ull << (i % 64);
    number_[i] = operation.number;
    owner_[i] = instruction.queue;
    issued_at_[i] = now_;
  }
  return operation.number;
}

void WaitState::retire(Line &line) {
  const Operation operation = line.front();
  line.pop();
  outstanding_--;
  const Registers r = operation.delivers;
  for (unsigned i = r.first; i < r.first + r.count && i < register_end; i++)
    if (number_[i] == operation.number) pending_[i / 64] &= ~(1ull << (i % 64));
}

void WaitState::retire_flat() {
  Line &flat = queue_of(Queue::flat);
  while (flat.size() && flat.front().vector_done && flat.front().lgkm_done) retire(flat);
}

void WaitState::wait(unsigned vector_memory, unsigned lgkm) {
  if (!outstanding_) return;
  // With FLAT operations in flight the worst case is that all those left belong to this queue.
  Line &vector_line = queue_of(Queue::vector_memory), &lds_line = queue_of(Queue::lds);
  if (vector_memory < vector_memory_limit)
    while (vector_line.size() > vector_memory) retire(vector_line);
  if (lgkm < lgkm_limit) {
    lds_wait_number_ = next_number_;
    while (lds_line.size() > lgkm) retire(lds_line);
  }
  if (lgkm == 0) {
    Line &scalar_line = queue_of(Queue::scalar_memory);
    while (scalar_line.size()) retire(scalar_line);
  }
  for (Operation &operation : queue_of(Queue::flat)) {
    operation.vector_done |= vector_memory == 0;
    operation.lgkm_done |= lgkm == 0;
  }
  retire_flat();
}

void WaitState::step(const Instruction &instruction) {
  now_++;
  const MemoryOperation *memory = instruction.opcode->memory;
  if (memory && memory->kind == MemoryOperation::store && memory->bytes > 8 &&
      instruction.queue == Queue::vector_memory &&
      (instruction.opcode->format != Format::MUBUF || instruction.scalar_offset >= sgpr_end)) {
    stored_ = {instruction.data, memory->data_dwords};
    stored_wait_states_ = 2;
  } else if (stored_wait_states_) {
    const bool nop =
        instruction.opcode->format == Format::SOPP && instruction.raw[0] >> 16 == 0xBF80;
    stored_wait_states_ -= nop ? instruction.immediate + 1 : 1;
    if (stored_wait_states_ < 0) stored_wait_states_ = 0;
  }
}

bool WaitState::complete(Queue queue, uint32_t number) const {
  const Line &line = queue_of(queue);
  return line.size() == 0 || line.front().number > number;
}

}  // namespace emu
