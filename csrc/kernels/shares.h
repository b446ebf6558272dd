// SPDX-License-Identifier: Apache-2.0
// Who takes which keys, in Hopper's kernels. Every wave finds out for itself, from the lengths.
#pragma once

#include "decode_sm90.h"
#include "sm90.h"

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

DEVICE u32 count_tiles(const DecodeSm90Arguments& a) {
  return static_cast<u32>((a.q_len * a.heads + a.tile_rows - 1) / a.tile_rows);
}

// Of a sequence, clamped; 0 of one that is not there.
DEVICE i32 get_length(const DecodeSm90Arguments& a, u32 sequence) {
  if (sequence >= static_cast<u32>(a.batch)) return 0;
  const i32 length = a.lengths[sequence];
  return length < 0 ? 0 : length > a.capacity ? a.capacity : length;
}

DEVICE u32 count_blocks(i32 length) { return (static_cast<u32>(length) + kSm90Keys - 1) / kSm90Keys; }

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

// What a block of threads has to do, one segment after the other.
class Segments {
 public:
  METHOD explicit Segments(const DecodeSm90Arguments& a) : a_(a), tiles_(count_tiles(a)) {
    const u32 worker = block_id_x();
    if (a.num_splits > 0) {
      length_ = get_length(a, block_id_z());
      blocks_ = count_blocks(length_);
      SetRange(Shares(blocks_, static_cast<u32>(a.num_splits)), worker);
      return;
    }
    u32 total = 0;
    for (u32 i = lane_id(); i < static_cast<u32>(a.batch); i += kWaveSize) {
      total += count_blocks(get_length(a, i));
    }
    SetRange(Shares(wave_sum(total) * tiles_, static_cast<u32>(a.workers)), worker);
    LoadSequences(0);
  }

  METHOD bool next(Segment& s) {
    if (at_ >= end_) return false;
    s = a_.num_splits > 0 ? OfFixedSplit() : OfWorker();
    at_ += s.end - s.begin;
    return true;
  }

 private:
  METHOD void SetRange(const Shares& shares, u32 part) {
    const bool exists = part < shares.count;
    at_ = exists ? shares.begin(part) : 0;
    end_ = exists ? shares.begin(part + 1) : 0;
  }

  METHOD Segment OfFixedSplit() const {
    const u32 job = block_id_z() * tiles_ + block_id_y();
    const u32 part = job * static_cast<u32>(a_.num_splits) + block_id_x();
    return {block_id_z(), block_id_y(), length_, at_, end_, part, at_ == 0 && end_ == blocks_};
  }

  // Parts of a job are numbered without gaps: a worker's and the next one's differ by one, and so
  // do two jobs'.
  METHOD Segment OfWorker() {
    u32 found;
    for (;;) {
      found = ballot(at_ >= first_ && at_ - first_ < blocks_ * tiles_);
      if (found != 0) break;
      LoadSequences(loaded_ + kWaveSize);
    }
    const u32 lane = __builtin_ctz(found);
    const u32 blocks = shuffle(blocks_, lane), offset = at_ - shuffle(first_, lane);
    Segment s;
    s.sequence = loaded_ + lane;
    s.length = static_cast<i32>(shuffle(static_cast<u32>(length_), lane));
    s.tile = tiles_ == 1 ? 0 : offset / blocks;
    s.begin = offset - s.tile * blocks;
    s.end = s.begin + (end_ - at_);
    if (s.end > blocks) s.end = blocks;
    s.part = block_id_x() + s.sequence * tiles_ + s.tile;
    s.whole = s.begin == 0 && s.end == blocks;
    return s;
  }

  // Each lane holds one of a wave's size of sequences.
  METHOD void LoadSequences(u32 first) {
    loaded_ = first;
    length_ = get_length(a_, first + lane_id());
    blocks_ = count_blocks(length_);
    const u32 sum = wave_scan(blocks_ * tiles_);
    first_ = before_ + sum - blocks_ * tiles_;
    before_ += shuffle(sum, kWaveSize - 1);
  }

  const DecodeSm90Arguments& a_;
  u32 tiles_;
  u32 at_, end_;             // blocks left: of the job, or of all jobs together
  u32 loaded_ = 0;           // the first of the sequences that the lanes hold
  i32 length_;               // of the lane's sequence
  u32 blocks_, first_ = 0;   // of the lane's sequence: of one tile, and the first among all jobs'
  u32 before_ = 0;           // blocks of the sequences up to the loaded ones
};

}  // namespace jax_mla
