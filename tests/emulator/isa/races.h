// SPDX-License-Identifier: Apache-2.0
// Visibility between the waves of a workgroup: a write may be touched by another wave only after an
// s_barrier; a write to LDS only if its writer has waited for it (s_waitcnt) before that.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "instruction.h"

namespace emu {

struct Workgroup;

// Every byte of LDS, and every byte of memory that the workgroup stored to, carries the number of
// the last instruction that wrote it. Numbers below `first_unordered_` are visible to all waves, so
// the common check is one comparison.
class RaceShadow {
 public:
  using Stamp = uint32_t;

  void begin_workgroup(size_t lds_bytes);
  Stamp begin_write(const Wave &wave, const Instruction &instruction, uint32_t number, Queue queue);
  void barrier(const Workgroup &workgroup);  // all waves have arrived

  Stamp *lds(uint32_t address) { return &lds_[address]; }
  Stamp *memory_if_written(uint64_t address);  // null: not stored to by this workgroup
  Stamp *memory(uint64_t address);  // the bytes up to the end of a page_bytes page
  static constexpr uint64_t page_bytes = 4096;

  bool unordered(Stamp stamp) const { return stamp >= first_unordered_; }
  bool never_written(Stamp stamp) const { return stamp < workgroup_start_; }

  // Why `wave` may not touch what the instruction `stamp` wrote; null if it may.
  const char *violation(const Wave &wave, Stamp stamp, Queue reading_queue) const;
  struct Writer {
    int wave;
    Queue queue;
    uint32_t number;
    const Instruction *instruction;
    bool visible;
  };
  const Writer &writer(Stamp stamp) const { return writers_[stamp - first_unordered_]; }

 private:
  bool visible_after_barrier(const Workgroup &workgroup, const Writer &writer) const;

  std::vector<Stamp> lds_;
  struct Page {
    Stamp bytes[page_bytes];
  };
  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
  uint64_t last_page_ = ~0ull;
  Page *last_page_data_ = nullptr;
  Stamp next_ = 1, first_unordered_ = 1, workgroup_start_ = 1;
  std::deque<Writer> writers_;  // of the stamps from first_unordered_ on
};

}  // namespace emu
