// SPDX-License-Identifier: Apache-2.0
// Who takes which keys. Every wave finds out for itself, from the lengths.
#pragma once

#include "decode.h"
#include "device.h"

namespace jax_mla {

// `total` blocks of keys in a row, in contiguous parts of the same size, or one block less.
struct Shares {
  u32 count;  // of parts, none of them empty
  u32 base;   // blocks of a part; the first `extra` have one more
  u32 extra;

  METHOD Shares(u32 total, u32 parts) {
    count = parts < total ? parts : total;
    base = count == 0 ? 0 : total / count;
    extra = total - base * count;
  }
  // The first block of a part, or where they end.
  METHOD u32 begin(u32 part) const { return part * base + (part < extra ? part : extra); }
  // The part that a block belongs to.
  METHOD u32 owner(u32 block) const {
    const u32 large = extra * (base + 1);
    return block < large ? block / (base + 1) : extra + (block - large) / base;
  }
};

// Among the workers. Every part is one more to merge: once 32 have work, a part has at least
// `part_blocks` blocks.
DEVICE Shares share_blocks(u32 total, u32 workers, u32 part_blocks) {
  constexpr u32 kEnough = 32;
  const u32 parts = total / part_blocks;
  const u32 most = parts > kEnough ? parts : kEnough;
  return Shares(total, workers < most ? workers : most);
}

DEVICE u32 count_tiles(const DecodeArguments& a) {
  return static_cast<u32>((a.q_len * a.heads + a.tile_rows - 1) / a.tile_rows);
}

// Of a sequence, clamped; 0 of one that is not there.
DEVICE i32 get_length(const DecodeArguments& a, u32 sequence) {
  if (sequence >= static_cast<u32>(a.batch)) return 0;
  const i32 length = a.lengths[sequence];
  return length < 0 ? 0 : length > a.capacity ? a.capacity : length;
}

template <u32 keys>
DEVICE u32 count_blocks(i32 length) {
  return (static_cast<u32>(length) + keys - 1) / keys;
}

// A part of a job: blocks begin .. end - 1 of its keys.
struct Segment {
  u32 sequence;
  u32 tile;
  i32 length;  // of the sequence
  u32 begin;
  u32 end;
  u32 part;    // in which its partial results lie
  bool whole;  // all of the job
};

// What a block of threads has to do, one segment after the other. Blocks have `keys` keys.
template <u32 keys, u32 part_blocks>
class Segments {
 public:
  METHOD explicit Segments(const DecodeArguments& a) : a_(a), tiles_(count_tiles(a)) {
    const u32 worker = block_id_x();
    if (a.num_splits > 0) {
      length_ = get_length(a, block_id_z());
      blocks_ = count_blocks<keys>(length_);
      set_range(Shares(blocks_, static_cast<u32>(a.num_splits)), worker);
      return;
    }
    u32 total = 0;
    for (u32 i = lane_id(); i < static_cast<u32>(a.batch); i += kWaveSize) {
      total += count_blocks<keys>(get_length(a, i));
    }
    set_range(share_blocks(wave_sum(total) * tiles_, static_cast<u32>(a.workers), part_blocks),
             worker);
    load_sequences(lane_id(), 0);
  }

  METHOD bool next(Segment& s) {
    if (at_ >= end_) return false;
    s = a_.num_splits > 0 ? of_fixed_split() : of_worker();
    at_ += s.end - s.begin;
    return true;
  }

 private:
  METHOD void set_range(const Shares& shares, u32 part) {
    if (part >= shares.count) return;
    at_ = shares.begin(part);
    end_ = shares.begin(part + 1);
  }

  METHOD Segment of_fixed_split() const {
    const u32 job = block_id_z() * tiles_ + block_id_y();
    const u32 part = job * static_cast<u32>(a_.num_splits) + block_id_x();
    return {block_id_z(), block_id_y(), length_, at_, end_, part, at_ == 0 && end_ == blocks_};
  }

  // Parts of a job are numbered without gaps: a worker's and the next one's differ by one, and so
  // do two jobs'.
  METHOD Segment of_worker() {
    decltype(ballot(true)) found;
    for (;;) {
      found = ballot(at_ >= first_ && at_ - first_ < blocks_ * tiles_);
      if (found != 0) break;
      load_sequences(sequence_ + kWaveSize, shuffle(first_ + blocks_ * tiles_, kWaveSize - 1));
    }
    const u32 lane = static_cast<u32>(__builtin_ctzll(found));
    const u32 blocks = shuffle(blocks_, lane), offset = at_ - shuffle(first_, lane);
    Segment s;
    s.sequence = shuffle(sequence_, lane);
    s.length = static_cast<i32>(shuffle(static_cast<u32>(length_), lane));
    s.tile = tiles_ == 1 ? 0 : offset / blocks;
    s.begin = offset - s.tile * blocks;
    s.end = s.begin + (end_ - at_);
    if (s.end > blocks) s.end = blocks;
    s.part = block_id_x() + s.sequence * tiles_ + s.tile;
    s.whole = s.begin == 0 && s.end == blocks;
    return s;
  }

  // Each lane holds a sequence, the first of which begins at block `before` of all.
  METHOD void load_sequences(u32 sequence, u32 before) {
    sequence_ = sequence;
    length_ = get_length(a_, sequence);
    blocks_ = count_blocks<keys>(length_);
    first_ = before + wave_scan(blocks_ * tiles_) - blocks_ * tiles_;
  }

  const DecodeArguments& a_;
  u32 tiles_;
  u32 at_ = 0, end_ = 0;  // blocks left: of the job, or of all jobs together
  // Of the lane's sequence:
  u32 sequence_ = 0;
  i32 length_ = 0;
  u32 blocks_ = 0;  // of one tile
  u32 first_ = 0;   // block, among those of all jobs
};

}  // namespace jax_mla
