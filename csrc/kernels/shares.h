// SPDX-License-Identifier: Apache-2.0
// Who takes which keys. Every wave finds out for itself, from the lengths.
#pragma once

#include "decode.h"
#include "device.h"

namespace jax_mla {

// Divides by the same number more than once; by 0 as if by 1.
struct Divisor {
  u32 value;
  u32 inverse;

  METHOD explicit Divisor(u32 x) : value(x > 0 ? x : 1), inverse(0xffffffff / value) {}
  METHOD u32 divide(u32 x) const {
    const u32 low = static_cast<u32>(static_cast<u64>(x) * inverse >> 32);  // or one more
    return x - low * value < value ? low : low + 1;
  }
};

// `total` blocks of keys in a row, in up to 2^16 contiguous parts of the same size, or one block less.
// Where parts are a multiple of jobs of one length, none of them has keys of two.
struct Shares {
  u32 total;
  u32 count;  // of parts, none of them empty
  Divisor by_count;
  u32 base;   // blocks of a part; `extra` parts, evenly spread, have one more
  u32 extra;

  METHOD Shares(u32 blocks, u32 parts)
      : total(blocks),
        count(parts < blocks ? parts : blocks),
        by_count(count),
        base(by_count.divide(blocks)),
        extra(blocks - base * count) {}
  // The first block of a part, or where they end: part * total / count, rounded down.
  METHOD u32 begin(u32 part) const { return part * base + by_count.divide(part * extra); }
  // The part that a block belongs to. By f32 it may be the next one, or the one before.
  METHOD u32 owner(u32 block) const {
    const f32 share = static_cast<f32>(count) * reciprocal(static_cast<f32>(total));
    u32 part = static_cast<u32>(static_cast<f32>(block) * share);
    while (!begins_by(part, block)) --part;
    while (begins_by(part + 1, block)) ++part;
    return part;
  }

 private:
  METHOD bool begins_by(u32 part, u32 block) const {
    return static_cast<u64>(part) * total < static_cast<u64>(block + 1) * count;
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

template <u32 rows>
DEVICE u32 count_tiles(const DecodeArguments& a) {
  return (static_cast<u32>(a.q_len * a.heads) + rows - 1) / rows;
}

DEVICE i32 clamp_length(const DecodeArguments& a, i32 length) {
  return length < 0 ? 0 : length > a.capacity ? a.capacity : length;
}
DEVICE i32 get_length(const DecodeArguments& a, u32 sequence) {
  return clamp_length(a, a.lengths[sequence]);
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
  // Leaves the first lengths on their way.
  METHOD Segments(const DecodeArguments& a, u32 tiles) : a_(a), tiles_(tiles) {
    load_length(lane_id());
  }

  // Before the first `next`.
  METHOD void find() {
    if (a_.num_splits > 0) {
      length_ = get_length(a_, block_id_z());  // the same for all lanes
      blocks_ = count_blocks<keys>(length_);
      set_range(Shares(blocks_, static_cast<u32>(a_.num_splits)));
      return;
    }
    count_keys();
    u32 total = blocks_;
    for (u32 i = lane_id() + kWaveSize; i < static_cast<u32>(a_.batch); i += kWaveSize) {
      total += count_blocks<keys>(get_length(a_, i));
    }
    place_sequences(0);
    set_range(
        share_blocks(wave_sum(total) * tiles_, static_cast<u32>(a_.workers), part_blocks));
  }

  METHOD bool next(Segment& s) {
    if (at_ >= end_) return false;
    s = a_.num_splits > 0 ? of_fixed_split() : of_worker();
    at_ += s.end - s.begin;
    return true;
  }

 private:
  METHOD void set_range(const Shares& shares) {
    const u32 part = block_id_x();
    at_ = shares.begin(part);
    end_ = part < shares.count ? shares.begin(part + 1) : at_;
  }

  METHOD Segment of_fixed_split() const {
    const u32 job = block_id_z() * tiles_ + block_id_y();
    const u32 part = job * static_cast<u32>(a_.num_splits) + block_id_x();
    return {block_id_z(), block_id_y(), length_, at_, end_, part, at_ == 0 && end_ == blocks_};
  }

  // Parts of a job are numbered without gaps: a worker's and the next one's differ by one, and so
  // do two jobs'.
  METHOD Segment of_worker() {
    auto found = find_owner();
    while (__builtin_expect(found == 0, false)) {
      const u32 before = shuffle(first_ + blocks_ * tiles_, kWaveSize - 1);
      load_length(sequence_ + kWaveSize);
      count_keys();
      place_sequences(before);
      found = find_owner();
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

  // Of the lane's sequence, 0 of one that is not there.
  METHOD void load_length(u32 sequence) {
    sequence_ = sequence;
    length_ = sequence < static_cast<u32>(a_.batch) ? a_.lengths[sequence] : 0;
  }
  METHOD void count_keys() {
    length_ = clamp_length(a_, length_);
    blocks_ = count_blocks<keys>(length_);
  }
  // The lane whose sequence has the next block, as a bit.
  METHOD decltype(ballot(true)) find_owner() const {
    return ballot(at_ - first_ < blocks_ * tiles_);  // unsigned: at_ >= first_ as well
  }
  // The sequences of the wave, one a lane; the first begins at block `before` of all.
  METHOD void place_sequences(u32 before) {
    first_ = before + wave_scan(blocks_ * tiles_) - blocks_ * tiles_;
  }

  const DecodeArguments& a_;
  u32 tiles_;
  u32 at_, end_;  // blocks left: of the job, or of all jobs together
  // Of the lane's sequence:
  u32 sequence_ = 0;
  i32 length_ = 0;
  u32 blocks_ = 0;  // of one tile
  u32 first_ = 0;   // block, among those of all jobs
};

}  // namespace jax_mla
