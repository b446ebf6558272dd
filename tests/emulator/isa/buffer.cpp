// SPDX-License-Identifier: Apache-2.0
// Buffer instructions: addresses through a resource descriptor, whose range check is the
// hardware's: loads out of range give 0, stores out of range are dropped, both are counted.
#include "access.h"
#include "vector_memory.h"

namespace emu {
namespace {

// The resource descriptor, four SGPRs.
struct Descriptor {
  uint64_t base;
  uint32_t stride, records;
  uint32_t index_stride, element_size;  // of a swizzled buffer
  bool swizzled, adds_lane;

  Descriptor(const Wave &wave, unsigned first) {
    const uint32_t *word = wave.s + first;
    base = word[0] | uint64_t{word[1] & 0xffff} << 32;
    stride = word[1] >> 16 & 0x3fff;
    records = word[2];
    index_stride = 8u << (word[3] >> 21 & 3);
    element_size = 2u << (word[3] >> 19 & 3);
    adds_lane = word[3] >> 23 & 1;
    if (adds_lane) stride |= (word[3] >> 15 & 15) << 14;
    swizzled = word[1] >> 31 && stride;
  }

  uint32_t offset(uint32_t index, uint32_t offset) const {
    if (!swizzled) return offset + stride * index;
    return ((index / index_stride) * stride + offset / element_size * element_size) * index_stride +
           (index % index_stride) * element_size + offset % element_size;
  }
};

class Addresses {
 public:
  Addresses(Wave &wave, const Instruction &i)
      : wave_(wave),
        i_(i),
        operation_(*i.opcode->memory),
        descriptor_(wave, i.resource),
        scalar_offset_(read_scalar(wave, i.scalar_offset, i.literal)) {
    for (uint64_t active = wave.exec_mask(); active; active &= active - 1)
      resolve(std::countr_zero(active));
  }
  Pointers pointers;

 private:
  Wave &wave_;
  const Instruction &i_;
  const MemoryOperation &operation_;
  const Descriptor descriptor_;
  const uint32_t scalar_offset_;
  uint8_t partial_[lanes][16];  // of loads of which some dwords are in range

  Access access() const {
    return operation_.kind == MemoryOperation::load    ? Access::read
           : operation_.kind == MemoryOperation::store ? Access::write
                                                       : Access::read_write;
  }

  void resolve(int l) {
    const uint32_t *address = i_.address == no_operand ? nullptr : wave_.row(i_.address);
    uint32_t index = i_.index_enable ? address[l] : 0, offset = static_cast<uint32_t>(i_.immediate);
    if (i_.offset_enable) offset += i_.index_enable ? address[lanes + l] : address[l];
    if (descriptor_.adds_lane) index += static_cast<uint32_t>(l);
    const uint32_t from_base = descriptor_.offset(index, offset);
    const uint64_t target = descriptor_.base + from_base + scalar_offset_;

    if (descriptor_.swizzled) {
      if (index < descriptor_.records && offset < descriptor_.stride)
        take(l, target);
      else
        clip(l);
      return;
    }
    const uint64_t limit =
        descriptor_.records > scalar_offset_ ? descriptor_.records - scalar_offset_ : 0;
    const unsigned last_dword = operation_.bytes < 4 ? 0 : operation_.bytes - 4;
    if (uint64_t{from_base} + last_dword < limit) return take(l, target);
    clip(l);
    if (from_base < limit && operation_.kind != MemoryOperation::atomic)
      take_some(l, target, limit - from_base);
  }

  void take(int l, uint64_t target) {
    pointers[l] = memory_at(wave_, l, target, operation_.bytes, access());
  }

  void clip(int l) {
    pointers[l] = nullptr;
    emu_counters &counters = *wave_.workgroup->counters;
    (operation_.kind == MemoryOperation::load ? counters.clipped_reads : counters.clipped_writes)++;
  }

  // The range check is for each dword.
  void take_some(int l, uint64_t target, uint64_t in_range) {
    const RaceShadow::Stamp stamp = access() == Access::write ? begin_write(wave_) : 0;
    for (unsigned at = 0; at < operation_.bytes; at += 4) {
      uint32_t value = 0;
      uint8_t *p = at < in_range ? memory_at(wave_, l, target + at, 4, access()) : nullptr;
      if (access() == Access::read) {
        if (p) note_read(wave_, l, p, 4), std::memcpy(&value, p, 4);
        std::memcpy(partial_[l] + at, &value, 4);
      } else if (p) {
        value = wave_.row(i_.data + at / 4)[l];
        note_write(wave_, l, p, 4, &value, stamp);
        std::memcpy(p, &value, 4);
      }
    }
    if (access() == Access::read) pointers[l] = partial_[l];
  }
};

uint32_t lds_base(const Wave &wave, const Instruction &i) {
  const uint32_t mask = wave.workgroup->arch() == Arch::gfx950 ? 0x3ffff : 0xffff;
  return (wave.s[m0] & mask) + static_cast<uint32_t>(i.immediate);
}

void access_buffer(Wave &wave, const Instruction &i) {
  const MemoryOperation &operation = *i.opcode->memory;
  const Addresses addresses(wave, i);
  const uint64_t active = wave.exec_mask();
  if (i.to_lds)
    return load_lanes_to_lds(wave, operation, lds_base(wave, i), addresses.pointers, active);
  switch (operation.kind) {
    case MemoryOperation::load:
      return load_lanes(wave, operation, i.destination, addresses.pointers, active);
    case MemoryOperation::store:
      return store_lanes(wave, operation, i.data, addresses.pointers, active);
    default: {
      const bool compares = operation.operation == Atomic::compare_swap;
      const unsigned comparand = compares ? i.data + operation.bytes / 4u : unsigned{no_operand};
      return atomic_lanes(wave, operation, i.data, comparand, i.data, i.sc0, addresses.pointers,
                          active);
    }
  }
}

}  // namespace

void add_buffer(Bindings &b) {
  add_loads_and_stores(b, "buffer_", access_buffer);
  add_atomics(b, "buffer_", access_buffer);
  // Caches are not modelled: every access takes effect at once.
  for (auto name : {"buffer_wbl2", "buffer_inv", "buffer_wbinvl1", "buffer_wbinvl1_vol"})
    b.add(name, [](Wave &, const Instruction &) {});
}

}  // namespace emu
