// SPDX-License-Identifier: Apache-2.0
// Stage 2 of decode: merges partial results into out and lse, and takes the real heads out.
#include "merge.h"

#include "device.h"
#include "scan.h"
#include "shares.h"

namespace jax_mla {
namespace {

constexpr u32 kThreads = kMergeThreads;
constexpr u32 kColumns = 4;  // that a thread merges

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
DEVICE Counts CountAllBlocks(const MergeArguments& a, i32 sequence) {
  SHARED i32 sums[2][kThreads];
  i32 before = 0, total = 0;
  for (i32 i = static_cast<i32>(thread_id()); i < a.batch; i += kThreads) {
    const i32 blocks = static_cast<i32>(CountBlocks(a, i));
    total += blocks;
    before += i < sequence ? blocks : 0;
  }
  block_scan(before, sums[0]);
  block_scan(total, sums[1]);
  return {static_cast<u32>(sums[0][kThreads - 1]), static_cast<u32>(sums[1][kThreads - 1])};
}

// Of the results of our own kernels.
DEVICE Parts FindOwnParts(const MergeArguments& a, i32 sequence, i32 query, i32 head) {
  const u32 tile_rows = static_cast<u32>(a.tile_rows);
  const u32 all = static_cast<u32>(a.q_len * a.heads), tiles = (all + tile_rows - 1) / tile_rows;
  const u32 row = static_cast<u32>(query * a.heads + head), tile = row / tile_rows;
  const u32 job = static_cast<u32>(sequence) * tiles + tile;
  const u32 blocks = CountBlocks(a, sequence);
  const u32 splits = static_cast<u32>(a.num_splits);
  u32 first = job * splits, count = blocks < splits ? blocks : splits;
  if (splits == 0) {
    const Counts counts = CountAllBlocks(a, sequence);
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

DEVICE Parts FindParts(const MergeArguments& a, i32 sequence, i32 query, i32 head) {
  if (a.tile_rows > 0) return FindOwnParts(a, sequence, query, head);
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

// out[columns] and the log-sum-exp, the same in every thread.
template <typename Store>
DEVICE void Merge(const MergeArguments& a, Store store) {
  SHARED f32 weights[kThreads];
  const i32 head = static_cast<i32>(block_id_x());
  const i32 query = static_cast<i32>(block_id_y());
  const i32 sequence = static_cast<i32>(block_id_z());
  const u32 thread = thread_id();
  const u32 column = thread * kColumns;
  const bool active = column < static_cast<u32>(a.latent_dim);
  const Parts parts = FindParts(a, sequence, query, head);
  if (parts.done) return;

  f32 top = -kInfinity, total = 0.0f;
  f32x4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
  for (i32 begin = 0; begin < parts.count; begin += kThreads) {
    const i32 left = parts.count - begin;
    const i32 count = left < static_cast<i32>(kThreads) ? left : static_cast<i32>(kThreads);
    block_sync();  // the weights of the last round are still being read
    if (static_cast<i32>(thread) < count) {
      weights[thread] = a.partial_lse[parts.first + (begin + thread) * parts.stride];
    }
    block_sync();
    f32 new_top = top;
    // Negated, so that NaN is not passed over: it must come out.
    for (i32 i = 0; i < count; ++i) new_top = !(weights[i] <= new_top) ? weights[i] : new_top;
    if (new_top == -kInfinity) continue;  // nothing but empty parts so far
    const f32 decay = exp(top - new_top);
    sum *= decay;
    total *= decay;
    top = new_top;
    for (i32 i = 0; i < count; ++i) {
      const f32 weight = exp(weights[i] - top);
      if (weight == 0.0f) continue;  // an empty part may hold anything
      total += weight;
      if (!active) continue;
      const i64 row = parts.first + (begin + i) * parts.stride;
      const f32* values = a.partial + row * a.latent_dim + column;
      sum += weight * *reinterpret_cast<const f32x4*>(values);
    }
  }

  const i64 row = (static_cast<i64>(sequence) * a.q_len + query) * a.heads + head;
  const bool empty = total == 0.0f;
  f32 factor = empty ? 0.0f : 1.0f / total;
  if (a.out_scale != nullptr) factor *= *a.out_scale;
  if (active) store(row * a.latent_dim + column, sum * factor);
  if (thread == 0) a.lse[row] = empty ? -kInfinity : top + log(total);
}

}  // namespace

KERNEL(kMergeThreads, 4) jax_mla_merge_bf16(MergeArguments a) {
  Merge(a, [&](i64 at, f32x4 x) {
    *reinterpret_cast<bf16x4*>(static_cast<bf16*>(a.out) + at) = to_bf16(x);
  });
}

KERNEL(kMergeThreads, 4) jax_mla_merge_f16(MergeArguments a) {
  Merge(a, [&](i64 at, f32x4 x) {
    *reinterpret_cast<f16x4*>(static_cast<f16*>(a.out) + at) = to_f16(x);
  });
}

KERNEL(kMergeThreads, 4) jax_mla_merge_f32(MergeArguments a) {
  Merge(a, [&](i64 at, f32x4 x) { *reinterpret_cast<f32x4*>(static_cast<f32*>(a.out) + at) = x; });
}

}  // namespace jax_mla
