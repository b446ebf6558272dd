// SPDX-License-Identifier: Apache-2.0
// Device memory: registered allocations, what a launch may touch of them, and what it did touch.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace emu {

// A zeroed byte map that takes memory only where it is used.
class LazyBytes {
 public:
  explicit LazyBytes(size_t size);
  ~LazyBytes();
  LazyBytes(const LazyBytes &) = delete;
  LazyBytes &operator=(const LazyBytes &) = delete;
  uint8_t *data() const { return data_; }

 private:
  size_t size_;
  uint8_t *data_;
};

// What one launch read and wrote, byte by byte.
struct TouchedBytes {
  static constexpr int page_shift = 12;
  explicit TouchedBytes(size_t size)
      : read(size), written(size), page_seen((size >> page_shift) + 1) {}
  LazyBytes read, written, page_seen;
};

struct Allocation {
  uint64_t begin = 0, end = 0;
  std::string name;
  bool readable = true, writable = true, counted = true;
  uint8_t *track = nullptr;               // the caller's map
  std::shared_ptr<LazyBytes> initialised; // bytes that something has written; may be null
  size_t initialised_offset = 0;
};

// One allocation as a launch sees it.
struct VisibleAllocation : Allocation {
  explicit VisibleAllocation(Allocation allocation) : Allocation(std::move(allocation)) {}
  std::unique_ptr<TouchedBytes> touched;  // with the option "traffic"
};

// The allocations that a launch may touch, in address order.
class MemoryView {
 public:
  void add(Allocation allocation);
  void finish(bool traffic);  // sorts; call once after the last add
  VisibleAllocation *find(uint64_t address, size_t bytes);  // the one that holds all of it, or null
  std::string describe(uint64_t address) const;  // the nearest allocation, in words
  std::vector<std::unique_ptr<VisibleAllocation>> allocations;
};

// What one host thread adds up; pages are those it was first to touch.
struct TrafficCount {
  struct Entry {
    uint64_t read = 0, written = 0;
    std::vector<uint32_t> pages;
  };
  std::map<const VisibleAllocation *, Entry> entries;
  const VisibleAllocation *last = nullptr;
  Entry *last_entry = nullptr;
  Entry &of(const VisibleAllocation *allocation) {
    if (allocation != last) last = allocation, last_entry = &entries[allocation];
    return *last_entry;
  }
};

class MemoryMap {
 public:
  // `watched`: it is recorded which bytes have been written.
  void add(uint64_t address, size_t bytes, std::string name, bool writable, bool watched);
  void remove(uint64_t address);
  void mark_written(uint64_t address, size_t bytes);
  void track(uint64_t address, uint8_t *map);
  void append_to(MemoryView &view) const;
  // A part of one allocation; throws if it is not.
  Allocation part(uint64_t address, size_t bytes, std::string name) const;

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, Allocation> allocations_;
  const Allocation *holder(uint64_t address, size_t bytes) const;
};

}  // namespace emu
