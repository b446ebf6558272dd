// SPDX-License-Identifier: Apache-2.0
// Plans persistent mode: cuts the sequences of a batch into works and deals them out to units.
//
// jax_mla/persistent.py says how, and what room, lead and load are. Each group of heads of each
// sequence is a job. Only the room that a job leaves to the next is found job by job, by one
// thread; with it the pieces of every job, and by prefix sums all the rest, follow in parallel, for
// a tile of as many jobs as there are threads.
#include "plan.h"

#include "device.h"
#include "scan.h"

namespace jax_mla {
namespace {

constexpr u32 kThreads = kPlanThreads;
constexpr i32 kOverhead = 16;  // blocks that a sequence costs besides its own

struct Job {
  i32 blocks;       // 0 without keys
  bool short_tail;  // the last block cannot stand alone: fewer keys than queries
};

// What the chain of rooms takes of a job, made so that it needs no division.
struct alignas(8) Link {
  i32 rest;      // blocks of the last piece if all others were full loads; 0 without keys
  i32 absorbed;  // what is left of a load by a last piece that the one before it takes, or -1
};

DEVICE i32 CeilDivide(i32 x, i32 y) {
  return (static_cast<u32>(x) + y - 1) / static_cast<u32>(y);
}

DEVICE i32 SequenceOf(const PlanArguments& a, i32 job) {
  return static_cast<u32>(job) / static_cast<u32>(a.groups);
}

// Blocks that a unit takes of one sequence, in every thread; 0 if there are no keys at all.
DEVICE i32 Load(const PlanArguments& a, i32 (&sums)[kThreads]) {
  i32 total = 0;
  for (i32 i = thread_id(); i < a.batch; i += kThreads) {
    const i32 length = a.kv_indptr[i + 1] - a.kv_indptr[i];
    if (length > 0) total += CeilDivide(length, a.block) + kOverhead;
  }
  block_scan(total, sums);
  return CeilDivide(sums[kThreads - 1] * a.groups, a.units);
}

DEVICE Job JobOf(const PlanArguments& a, i32 number) {
  const i32 sequence = SequenceOf(a, number);
  const i32 length = a.kv_indptr[sequence + 1] - a.kv_indptr[sequence];
  if (length == 0) return {0, false};
  const i32 blocks = CeilDivide(length, a.block);
  return {blocks, length - (blocks - 1) * a.block < a.q_len};
}

DEVICE Link LinkOf(const Job& job, i32 load) {
  if (job.blocks == 0) return {0, -1};
  const i32 rest = static_cast<u32>(job.blocks - 1) % static_cast<u32>(load) + 1;
  return {rest, job.short_tail && job.blocks > 1 ? load - 1 : -1};
}

// Blocks of the first piece where there are others. Without room for more than the overhead, a job
// begins on the next unit.
DEVICE i32 Lead(i32 room, i32 load) { return room > 0 ? room : load; }

// Room for the next job on the unit that ends this one. For a job of one piece, all of it is rest.
DEVICE i32 RoomAfter(const Link& job, i32 room, i32 load) {
  const i32 left = Lead(room, load) - job.rest;
  const i32 left_of_last = left < 0 ? left + load : left;
  const i32 after = left_of_last == job.absorbed ? 0 : left_of_last - kOverhead;
  return job.rest > 0 ? after : room;
}

DEVICE i32 Pieces(const Job& job, i32 room, i32 load) {
  const i32 further = job.blocks - Lead(room, load);
  if (further <= 0) return job.blocks > 0;
  const i32 cuts = CeilDivide(further, load);
  const i32 last = further - (cuts - 1) * load;
  return last == 1 && job.short_tail ? cuts : cuts + 1;
}

// The first of the rising `ends` that is above `at`.
DEVICE i32 Find(const i32 (&ends)[kThreads], i32 at) {
  i32 found = 0;
  for (u32 step = kThreads / 2; step > 0; step /= 2) {
    if (ends[found + step - 1] <= at) found += step;
  }
  return found;
}

// One of the pieces of a job.
struct Piece {
  i32 job;
  i32 index;
  bool last;
  i32 lead;
};

// A piece as the batch's work `number`.
DEVICE Work WorkOf(const PlanArguments& a, const Piece& piece, i32 load, i32 number) {
  const i32 sequence = SequenceOf(a, piece.job);
  const i32 group = piece.job - sequence * a.groups;
  const i32 place = group * a.batch + sequence;
  const i32 base = a.kv_indptr[sequence];
  const i32 length = a.kv_indptr[sequence + 1] - base;
  const i32 loads_end = (piece.lead + piece.index * load) * a.block;
  const i32 begin = piece.index == 0 ? 0 : loads_end - load * a.block;
  const i32 end = piece.last ? length : loads_end;
  Work work;
  work.place = place;
  work.partial_row = number * a.q_len;
  work.q_begin = place * a.q_len;
  work.q_end = (place + 1) * a.q_len;
  work.kv_begin = base + begin;
  work.kv_end = base + end;
  work.keys_after = length - end;
  work.unused = 0;
  return work;
}

}  // namespace

KERNEL(kPlanThreads, 1) jax_mla_plan(PlanArguments a) {
  SHARED Link links[kThreads];
  SHARED i32 rooms[kThreads];  // that each job of the tile finds
  SHARED i32 ends[kThreads];   // works of the tile's jobs up to and with each
  SHARED i32 joins[kThreads];  // how many of these join a unit that has works already

  const i32 thread = thread_id();
  const i32 jobs = a.batch * a.groups;
  const i32 load = Load(a, ends);
  i32 room = 0;               // none, so that the first job begins on a new unit
  i32 works = 0, joined = 0;  // of the tiles before
  if (thread == 0) a.reduce_indptr[0] = 0;

  for (i32 first = 0; first < jobs; first += kThreads) {
    const i32 count = jobs - first < kPlanThreads ? jobs - first : kPlanThreads;
    const bool active = thread < count;
    const i32 own = first + thread;
    Job job = {0, false};
    if (active) job = JobOf(a, own);
    links[thread] = LinkOf(job, load);
    block_sync();
    if (thread == 0) {
      for (i32 i = 0; i < count; ++i) {
        rooms[i] = room;
        room = RoomAfter(links[i], room, load);
      }
    }
    block_sync();
    const i32 found = active ? rooms[thread] : 0;
    const i32 pieces = Pieces(job, found, load);
    block_scan(pieces, ends);
    block_scan(pieces > 0 && found > 0, joins);
    if (active) a.reduce_indptr[own + 1] = works + ends[thread];

    // Every work opens a unit, the next one, unless it joins the last.
    for (i32 at = thread; at < ends[kThreads - 1]; at += kThreads) {
      const i32 number = works + at;
      const i32 i = Find(ends, at);
      const i32 begin = i > 0 ? ends[i - 1] : 0;
      const Piece piece = {first + i, at - begin, at == ends[i] - 1, Lead(rooms[i], load)};
      a.work_info[number] = WorkOf(a, piece, load, number);
      const bool opens = piece.index > 0 || rooms[i] <= 0;
      if (opens) a.work_indptr[number - joined - joins[i]] = number;
    }
    works += ends[kThreads - 1];
    joined += joins[kThreads - 1];
  }

  for (i32 unit = works - joined + thread; unit <= a.units; unit += kThreads) {
    a.work_indptr[unit] = works;
  }
  for (i32 i = works + thread; i < jobs + a.units - 1; i += kThreads) a.work_info[i] = {};
}

}  // namespace jax_mla
