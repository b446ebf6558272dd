// SPDX-License-Identifier: Apache-2.0
// Plans persistent mode: cuts the sequences of a batch into works and deals them out to units.
//
// jax_mla/persistent.py says how, and what room, lead and load are. Each group of heads of a sequence
// is a job. Only the room that a job leaves to the next is found job by job, by one thread. With it
// the pieces of every job, and by prefix sums all the rest, follow in parallel, for a tile of as
// many jobs as there are threads.
#include "plan.h"

#include "device.h"
#include "scan.h"

namespace jax_mla {
namespace {

constexpr u32 kThreads = kPlanThreads;
constexpr i32 kOverhead = 16;  // blocks that a sequence costs besides its own

// A group of heads of one sequence.
struct alignas(16) Job {
  i32 blocks;    // 0 without keys
  i32 rest;      // of the last piece, if all of them were full loads: so rooms need no division
  i32 absorbed;  // blocks of a last piece too short to stand alone: 1, or 0 where none is
};

DEVICE i32 CeilDivide(i32 x, i32 y) {
  return (static_cast<u32>(x) + y - 1) / static_cast<u32>(y);
}

// Blocks that a unit takes of one sequence, in every thread.
DEVICE i32 Load(const PlanArguments& a, i32 (&sums)[kThreads]) {
  i32 total = 0;
  for (i32 i = thread_id(); i < a.batch; i += kThreads) {
    const i32 length = a.kv_indptr[i + 1] - a.kv_indptr[i];
    if (length > 0) total += CeilDivide(length, a.block) + kOverhead;
  }
  block_scan(total, sums);
  total = sums[kThreads - 1] * a.groups;
  return total > 0 ? CeilDivide(total, a.units) : 1;
}

DEVICE Job JobOf(const PlanArguments& a, i32 sequence, i32 load) {
  const i32 length = a.kv_indptr[sequence + 1] - a.kv_indptr[sequence];
  if (length == 0) return {0, 0, 0};
  const i32 blocks = CeilDivide(length, a.block);
  const bool short_tail = length - (blocks - 1) * a.block < a.q_len;
  const i32 rest = static_cast<u32>(blocks - 1) % static_cast<u32>(load) + 1;
  return {blocks, rest, short_tail ? 1 : 0};
}

// Blocks of the first piece where there are others. Without room for more than the overhead, a job
// begins on the next unit.
DEVICE i32 Lead(i32 room, i32 load) { return room > 0 ? room : load; }

// Room for the next job, on the unit that ends this one.
DEVICE i32 RoomAfter(const Job& job, i32 room, i32 load) {
  const i32 lead = Lead(room, load);
  const i32 rest = job.rest - lead;
  const i32 last = rest > 0 ? rest : rest + load;
  const i32 cut = last == job.absorbed ? 0 : load - last - kOverhead;
  const i32 after = job.blocks > lead ? cut : lead - job.blocks - kOverhead;
  return job.blocks > 0 ? after : room;
}

DEVICE i32 Pieces(const Job& job, i32 room, i32 load) {
  const i32 lead = Lead(room, load);
  if (job.blocks <= lead) return job.blocks > 0;
  const i32 cuts = CeilDivide(job.blocks - lead, load);
  const i32 last = job.blocks - lead - (cuts - 1) * load;
  return last == job.absorbed ? cuts : cuts + 1;
}

// The first of the rising `ends` that is above `at`.
DEVICE u32 Find(const i32 (&ends)[kThreads], i32 at) {
  u32 found = 0;
  for (u32 step = kThreads / 2; step > 0; step /= 2) {
    if (ends[found + step - 1] <= at) found += step;
  }
  return found;
}

// Piece `piece` of a job of `pieces` pieces, as the batch's work `number`.
DEVICE Work WorkOf(const PlanArguments& a, i32 job, i32 piece, i32 pieces, i32 number, i32 lead,
                   i32 load) {
  const i32 sequence = static_cast<u32>(job) / static_cast<u32>(a.groups);
  const i32 group = job - sequence * a.groups;
  const i32 row = (group * a.batch + sequence) * a.q_len;
  const i32 base = a.kv_indptr[sequence];
  const i32 length = a.kv_indptr[sequence + 1] - base;
  const i32 begin = piece == 0 ? 0 : (lead + (piece - 1) * load) * a.block;
  const i32 end = piece == pieces - 1 ? length : (lead + piece * load) * a.block;
  return {sequence,     number * a.q_len, row, row + a.q_len,
          base + begin, base + end,       length - end, 0};
}

}  // namespace

KERNEL(kPlanThreads, 1) jax_mla_plan(PlanArguments a) {
  SHARED Job tile[kThreads];
  SHARED i32 rooms[kThreads];  // that each job of the tile finds
  SHARED i32 ends[kThreads];   // works of the tile's jobs up to and with each
  SHARED i32 joins[kThreads];  // those jobs among these that begin on a unit with works already

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
    Job job = {0, 0, 0};
    if (active) job = JobOf(a, static_cast<u32>(own) / static_cast<u32>(a.groups), load);
    tile[thread] = job;
    block_sync();
    if (thread == 0) {
      for (i32 i = 0; i < count; ++i) {
        rooms[i] = room;
        room = RoomAfter(tile[i], room, load);
      }
    }
    block_sync();
    const i32 found = active ? rooms[thread] : 0;
    const i32 pieces = Pieces(job, found, load);
    block_scan(pieces, ends);
    block_scan(pieces > 0 && found > 0, joins);
    if (active) a.reduce_indptr[own + 1] = works + ends[thread];

    // Every work opens a unit, but for those that join one.
    for (i32 at = thread; at < ends[kThreads - 1]; at += kThreads) {
      const i32 number = works + at;
      const u32 i = Find(ends, at);
      const i32 begin = i > 0 ? ends[i - 1] : 0;
      const i32 piece = at - begin;
      a.work_info[number] =
          WorkOf(a, first + i, piece, ends[i] - begin, number, Lead(rooms[i], load), load);
      if (piece > 0 || rooms[i] <= 0) a.work_indptr[number - joined - joins[i]] = number;
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
