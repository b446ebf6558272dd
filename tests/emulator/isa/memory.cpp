// SPDX-License-Identifier: Apache-2.0
// Registered allocations and the view of them that a launch gets.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "error.h"

namespace emu {

LazyBytes::LazyBytes(size_t size) : size_(size) {
  void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw Error("out of memory for a byte map");
  data_ = static_cast<uint8_t *>(memory);
}

LazyBytes::~LazyBytes() { munmap(data_, size_); }

void MemoryView::add(Allocation allocation) {
  allocations.push_back(std::make_unique<VisibleAllocation>(std::move(allocation)));
}

void MemoryView::finish(bool traffic) {
  std::sort(allocations.begin(), allocations.end(),
            [](const auto &a, const auto &b) { return a->begin < b->begin; });
  if (!traffic) return;
  for (auto &allocation : allocations)
    if (allocation->counted)
      allocation->touched = std::make_unique<TouchedBytes>(allocation->end - allocation->begin);
}

VisibleAllocation *MemoryView::find(uint64_t address, size_t bytes) {
  // Extents may overlap (a donated operand and its result): look back over all that begin before.
  auto after = std::upper_bound(allocations.begin(), allocations.end(), address,
                                [](uint64_t a, const auto &b) { return a < b->begin; });
  while (after != allocations.begin()) {
    VisibleAllocation *candidate = (--after)->get();
    if (address + bytes <= candidate->end) return candidate;
  }
  return nullptr;
}

std::string MemoryView::describe(uint64_t address) const {
  const VisibleAllocation *nearest = nullptr;
  uint64_t best = ~0ull;
  for (const auto &a : allocations) {
    const uint64_t distance = address < a->begin  ? a->begin - address
                              : address >= a->end ? address - a->end + 1
                                                  : 0;
    if (distance < best) best = distance, nearest = a.get();
  }
  if (!nearest) return "no memory is registered";
  const auto *name = nearest->name.c_str();
  const unsigned long long size = nearest->end - nearest->begin;
  if (address < nearest->begin)
    return format("%llu bytes before '%s' (%llu bytes)",
                  static_cast<unsigned long long>(nearest->begin - address), name, size);
  if (address >= nearest->end)
    return format("%llu bytes past the end of '%s' (%llu bytes)",
                  static_cast<unsigned long long>(address - nearest->end), name, size);
  return format("at byte %llu of '%s' (%llu bytes)",
                static_cast<unsigned long long>(address - nearest->begin), name, size);
}

void MemoryMap::add(uint64_t address, size_t bytes, std::string name, bool writable, bool watched) {
  if (!bytes) return;
  Allocation allocation;
  allocation.begin = address;
  allocation.end = address + bytes;
  allocation.name = std::move(name);
  allocation.writable = writable;
  if (watched) allocation.initialised = std::make_shared<LazyBytes>(bytes);
  std::lock_guard lock(mutex_);
  auto next = allocations_.lower_bound(address);
  if (next != allocations_.end() && next->first == address && next->second.end == allocation.end) {
    next->second = std::move(allocation);
    return;
  }
  const bool overlaps = (next != allocations_.end() && next->first < allocation.end) ||
                        (next != allocations_.begin() && std::prev(next)->second.end > address);
  if (overlaps) throw Error("'" + allocation.name + "' overlaps a registered allocation");
  allocations_.emplace(address, std::move(allocation));
}

void MemoryMap::remove(uint64_t address) {
  std::lock_guard lock(mutex_);
  if (!allocations_.erase(address)) throw Error("this address is not registered");
}

const Allocation *MemoryMap::holder(uint64_t address, size_t bytes) const {
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  const Allocation &allocation = std::prev(after)->second;
  return address + bytes <= allocation.end ? &allocation : nullptr;
}

void MemoryMap::mark_written(uint64_t address, size_t bytes) {
  if (!bytes) return;
  std::lock_guard lock(mutex_);
  const Allocation *allocation = holder(address, bytes);
  if (!allocation) throw Error("these bytes are not registered");
  if (allocation->initialised)
    std::memset(allocation->initialised->data() + (address - allocation->begin), 1, bytes);
}

void MemoryMap::track(uint64_t address, uint8_t *map) {
  std::lock_guard lock(mutex_);
  auto found = allocations_.find(address);
  if (found == allocations_.end()) throw Error("this address is not registered");
  found->second.track = map;
}

void MemoryMap::append_to(MemoryView &view) const {
  std::lock_guard lock(mutex_);
  for (const auto &[begin, allocation] : allocations_) view.add(allocation);
}

Allocation MemoryMap::part(uint64_t address, size_t bytes, std::string name) const {
  std::lock_guard lock(mutex_);
  const Allocation *whole = holder(address, bytes);
  if (!whole) throw Error("extent '" + name + "' does not lie in one registered allocation");
  Allocation part = *whole;
  part.begin = address;
  part.end = address + bytes;
  part.name = std::move(name);
  part.initialised_offset = address - whole->begin;
  if (part.track) part.track += part.initialised_offset;
  return part;
}

}  // namespace emu
