// SPDX-License-Identifier: Apache-2.0
// Stage 2 of decode: merges partial results into out and lse, and takes the real heads out.
#include "merge.h"

#include "device.h"
#include "shares.h"

namespace jax_mla {
namespace {

constexpr u32 kTeam = kMergeThreads;  // threads that take a part, all columns of it
constexpr u32 kColumns = 4;           // that a thread merges
constexpr u32 kLoads = 8;             // parts of them that it has on their way
static_assert(kTeam % kLoads == 0);

// Where the partial results of one output row lie.
struct Parts {
  i64 first;   // row of the first
  i64 stride;  // rows from one to the next
  i32 count;   // 0 where the query sees no key
  bool done;   // there is nothing to merge
};

DEVICE i32 ClampLength(const MergeArguments& a, i32 length) {
  return length < 0 ? 0 : length > a.capacity ? a.capacity : length;
}
DEVICE u32 CountBlocks(const MergeArguments& a, i32 sequence) {
  const u32 length = static_cast<u32>(ClampLength(a, a.lengths[sequence]));
  const u32 block = static_cast<u32>(a.kv_block);
  return (length + block - 1) / block;
}

// The blocks of the sequences before one, and of all. All threads of the block take part.
struct Counts {
  u32 before;
  u32 total;
};
template <u32 threads>
DEVICE Counts CountAllBlocks(const MergeArguments& a, i32 sequence) {
  SHARED Counts sums[threads / kWaveSize];
  Counts mine = {0, 0};
  for (u32 i = thread_id(); i < static_cast<u32>(a.batch); i += threads) {
    const u32 blocks = CountBlocks(a, static_cast<i32>(i));
    mine.before += i < static_cast<u32>(sequence) ? blocks : 0;
    mine.total += blocks;
  }
  sums[wave_id()] = {wave_sum(mine.before), wave_sum(mine.total)};
  block_sync();
  Counts all = {0, 0};
  for (const Counts& wave : sums) {
    all.before += wave.before;
    all.total += wave.total;
  }
  return all;
}

// Of the results of our own kernels.
template <u32 threads>
DEVICE Parts FindOwnParts(const MergeArguments& a, i32 sequence, i32 query, i32 head) {
  const u32 tile_rows = static_cast<u32>(a.tile_rows);
  const u32 all = static_cast<u32>(a.q_len * a.heads), tiles = (all + tile_rows - 1) / tile_rows;
  const u32 row = static_cast<u32>(query * a.heads + head), tile = row / tile_rows;
  const u32 job = static_cast<u32>(sequence) * tiles + tile;
  const u32 blocks = CountBlocks(a, sequence);
  const u32 splits = static_cast<u32>(a.num_splits);
  u32 first = job * splits, count = blocks < splits ? blocks : splits;
  if (splits == 0) {
    const Counts counts = CountAllBlocks<threads>(a, sequence);
    const Shares shares = share_blocks(counts.total * tiles, static_cast<u32>(a.workers),
                                       static_cast<u32>(a.part_blocks));
    const u32 begin = counts.before * tiles + tile * blocks;
    if (blocks > 0) {
      first = shares.owner(begin) + job;
      count = shares.owner(begin + blocks - 1) + job - first + 1;
    }
  }
  return {static_cast<i64>(first) * tile_rows + row % tile_rows, tile_rows,
          static_cast<i32>(count), count == 1};
}

template <u32 threads>
DEVICE Parts FindParts(const MergeArguments& a, i32 sequence, i32 query, i32 head) {
  if (a.tile_rows > 0) return FindOwnParts<threads>(a, sequence, query, head);
  const i32 row = head * a.head_stride;
  const i32 group = row / a.group_rows;
  const i32 seen = ClampLength(a, a.lengths[sequence]) - a.q_len + query + 1;

  Parts parts;
  parts.done = false;
  i64 lane;  // the (part, query) or (query, part) pair that comes first
  if (a.reduce_indptr != nullptr) {
    const i32* range = a.reduce_indptr + sequence * a.groups + group;
    lane = static_cast<i64>(range[0]) * a.q_len + query;
    parts.stride = static_cast<i64>(a.q_len) * a.group_rows;
    parts.count = range[1] - range[0];
  } else {
    const i64 token = (static_cast<i64>(group) * a.batch + sequence) * a.q_len + query;
    const i32 blocks = (seen + a.kv_block - 1) / a.kv_block;
    lane = token * a.num_splits;
    parts.stride = a.group_rows;
    parts.count = blocks < a.num_splits ? blocks : a.num_splits;
  }
  if (seen <= 0) parts.count = 0;
  parts.first = lane * a.group_rows + row % a.group_rows;
  return parts;
}

// The larger one, and NaN if there is one: it must come out.
DEVICE f32 Larger(f32 x, f32 y) { return x > y || x != x ? x : y; }

DEVICE f32 Plus(f32 x, f32 y) { return x + y; }

// Numbers of all threads put together, the same in all of them.
template <u32 threads, f32 (*together)(f32, f32)>
DEVICE f32 BlockReduce(f32 x) {
  SHARED f32 waves[threads / kWaveSize];
  x = reduce<kWaveSize>(x, together);
  if (lane_id() == 0) waves[wave_id()] = x;
  block_sync();
  x = waves[0];
  for (u32 i = 1; i < threads / kWaveSize; ++i) x = together(x, waves[i]);
  return x;
}

DEVICE void StoreBf16(void* out, i64 at, f32x4 x) {
  *reinterpret_cast<bf16x4*>(static_cast<bf16*>(out) + at) = to_bf16(x);
}
DEVICE void StoreF16(void* out, i64 at, f32x4 x) {
  *reinterpret_cast<f16x4*>(static_cast<f16*>(out) + at) = to_f16(x);
}
DEVICE void StoreF32(void* out, i64 at, f32x4 x) {
  *reinterpret_cast<f32x4*>(static_cast<f32*>(out) + at) = x;
}

template <u32 threads, void (*store)(void*, i64, f32x4)>
DEVICE void Merge(const MergeArguments& a) {
  constexpr u32 kTeams = threads / kTeam;  // which take parts in turn
  SHARED f32 weights[threads];
  SHARED f32x4 sums[kTeams][kTeam];
  const i32 head = static_cast<i32>(block_id_x());
  const i32 query = static_cast<i32>(block_id_y());
  const i32 sequence = static_cast<i32>(block_id_z());
  const u32 thread = thread_id(), team = thread / kTeam, column = thread % kTeam * kColumns;
  const bool active = column < static_cast<u32>(a.latent_dim);
  const Parts parts = FindParts<threads>(a, sequence, query, head);
  if (parts.done) return;

  f32 top = -kInfinity, total = 0.0f;
  f32x4 sum = {0.0f, 0.0f, 0.0f, 0.0f};  // of the team's parts
  for (i32 begin = 0; begin < parts.count; begin += threads) {
    const i32 mine = begin + static_cast<i32>(thread);
    const bool exists = mine < parts.count;
    const f32 lse = exists ? a.partial_lse[parts.first + mine * parts.stride] : -kInfinity;
    block_sync();  // what the last round left is still being read
    const f32 new_top = Larger(top, BlockReduce<threads, Larger>(lse));
    if (new_top == -kInfinity) continue;  // nothing but empty parts so far
    const f32 decay = exp(top - new_top);
    top = new_top;
    weights[thread] = exists ? exp(lse - top) : 0.0f;
    total = total * decay + BlockReduce<threads, Plus>(weights[thread]);
    sum *= decay;
    const u32 left = static_cast<u32>(parts.count - begin), count = left < threads ? left : threads;
    for (u32 i = team * kLoads; i < count; i += kTeams * kLoads) {
      f32x4 values[kLoads];
#pragma unroll
      for (u32 j = 0; j < kLoads; ++j) {
        values[j] = f32x4{};
        // An empty part may hold anything.
        if (!active || weights[i + j] == 0.0f) continue;
        const i64 row = parts.first + (begin + static_cast<i32>(i + j)) * parts.stride;
        values[j] = *reinterpret_cast<const f32x4*>(a.partial + row * a.latent_dim + column);
      }
#pragma unroll
      for (u32 j = 0; j < kLoads; ++j) sum += weights[i + j] * values[j];
    }
  }
  sums[team][thread % kTeam] = sum;
  block_sync();
  if (team > 0) return;
  for (u32 i = 1; i < kTeams; ++i) sum += sums[i][thread];

  const i64 row = (static_cast<i64>(sequence) * a.q_len + query) * a.heads + head;
  const bool empty = total == 0.0f;
  f32 factor = empty ? 0.0f : 1.0f / total;
  if (a.out_scale != nullptr) factor *= *a.out_scale;
  if (active) store(a.out, row * a.latent_dim + column, sum * factor);
  if (thread == 0) a.lse[row] = empty ? -kInfinity : top + log(total);
}

}  // namespace

#define MERGE(name, threads, store) \
  KERNEL(threads, 1) jax_mla_merge_##name(MergeArguments a) { Merge<threads, store>(a); }
MERGE(bf16, kMergeThreads, StoreBf16)
MERGE(bf16_many, kMergeManyThreads, StoreBf16)
MERGE(f16, kMergeThreads, StoreF16)
MERGE(f16_many, kMergeManyThreads, StoreF16)
MERGE(f32, kMergeThreads, StoreF32)
MERGE(f32_many, kMergeManyThreads, StoreF32)

}  // namespace jax_mla
