// SPDX-License-Identifier: Apache-2.0
// Stage 2 of decode on NVIDIA's Hopper GPUs: merges partial results into out and lse.
//
// It starts while stage 1 runs, finds out what to merge from the lengths, and waits for stage 1 with
// nothing left to do but to load, add and store. A wave merges pieces (partial_sm90.h) of 8 rows and
// 16 columns, each lane two rows of two columns. There are three kernels:
//
//   8x1  for many parts: the eight waves of a block share a piece
//   1x1  a wave takes a piece
//   1x4  for few parts: a wave takes four pieces side by side
#include "decode_sm90.h"

#include "device.h"
#include "partial_sm90.h"
#include "shares.h"
#include "sm90.h"

namespace jax_mla {
namespace {

constexpr u32 kWaves = kSm90MergeThreads / kWaveSize;

// Blocks of keys of the sequences before one, and of all. Every thread takes part.
struct Counts {
  u32 before;
  u32 total;
};
DEVICE Counts CountAllBlocks(const DecodeSm90Arguments& a, u32 sequence) {
  SHARED Counts sums[kWaves];
  Counts mine = {0, 0};
  for (u32 i = thread_id(); i < static_cast<u32>(a.batch); i += kSm90MergeThreads) {
    const u32 blocks = count_blocks<kSm90KvBlock>(get_length(a, i));
    mine.before += i < sequence ? blocks : 0;
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

// The parts of a job: they follow each other.
struct Parts {
  u32 first;
  u32 count;
};
DEVICE Parts FindParts(const DecodeSm90Arguments& a, u32 sequence, u32 tile) {
  const u32 tiles = grid_size_y(), job = sequence * tiles + tile;
  const u32 blocks = count_blocks<kSm90KvBlock>(get_length(a, sequence));
  const u32 splits = static_cast<u32>(a.num_splits);
  if (splits > 0) return {job * splits, blocks < splits ? blocks : splits};
  const Counts counts = CountAllBlocks(a, sequence);
  if (blocks == 0) return {0, 0};
  const Shares shares =
      share_blocks(counts.total * tiles, static_cast<u32>(a.workers), kSm90PartBlocks);
  const u32 first = counts.before * tiles + tile * blocks, owner = shares.owner(first);
  return {owner + job, shares.owner(first + blocks - 1) - owner + 1};
}

// What a wave has merged of `pieces` pieces side by side. Weights are found by (row, part), eight rows
// and four parts at once, and reach the lanes that hold the rows' columns through shared memory.
template <u32 pieces>
struct Merged {
  f32 top = -kInfinity;  // of row lane % 8, as partial_sm90.h has it
  f32 total = 0.0f;
  f32x4 sums[pieces] = {};

  // Takes in `count` results for each row. A lane has the tops and totals of parts lane / 8,
  // lane / 8 + 4 and so on of its row.
  template <u32 count>
  METHOD void add(f32 (&shared)[count + 1][8], const f32 (&tops)[count / 4],
                  const f32 (&totals)[count / 4], const f32x4 (&values)[count][pieces]) {
    const u32 lane = lane_id(), row = lane % 8;
    f32 new_top = top;
    for (u32 i = 0; i < count / 4; ++i) new_top = max(new_top, tops[i]);
    new_top = max(new_top, shuffle_xor<8>(new_top));
    new_top = max(new_top, shuffle_xor<16>(new_top));
    const f32 base = new_top == -kInfinity ? 0.0f : new_top;  // -inf - -inf would be NaN
    const f32 decay = exp2(top - base);
    top = new_top;
    f32 sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < count / 4; ++i) {
      const f32 weight = exp2(tops[i] - base);
      sum += weight * totals[i];
      shared[i * 4 + lane / 8][row] = weight;
    }
    if (lane < 8) shared[count][row] = decay;
    sum += shuffle_xor<8>(sum);
    total = total * decay + sum + shuffle_xor<16>(sum);
    wave_sync();
    const auto weights = [&](u32 part) {
      return *reinterpret_cast<const vector<f32, 2>*>(&shared[part][lane % 4 * 2]);
    };
    const auto decays = weights(count);
#pragma unroll
    for (u32 n = 0; n < pieces; ++n) {
      for (u32 k = 0; k < 4; ++k) sums[n][k] *= decays[k % 2];
    }
#pragma unroll
    for (u32 i = 0; i < count; ++i) {
      const auto weight = weights(i);
#pragma unroll
      for (u32 n = 0; n < pieces; ++n) {
        for (u32 k = 0; k < 4; ++k) sums[n][k] += weight[k % 2] * values[i][n][k];
      }
    }
    wave_sync();  // what is shared has been read
  }
};

// Of the waves of a block, in the first one.
DEVICE void AddWaves(Merged<1>& merged) {
  SHARED f32 tops[kWaves][8], totals[kWaves][8], weights[kWaves + 1][8];
  SHARED f32x4 sums[kWaves][kWaveSize];
  const u32 wave = wave_id(), lane = lane_id(), row = lane % 8, part = lane / 8;
  if (lane < 8) {
    tops[wave][row] = merged.top;
    totals[wave][row] = merged.total;
  }
  sums[wave][lane] = merged.sums[0];
  block_sync();
  if (wave != 0) return;
  f32x4 values[kWaves][1];
#pragma unroll
  for (u32 i = 0; i < kWaves; ++i) values[i][0] = sums[i][lane];
  merged = Merged<1>();
  merged.add<kWaves>(weights, {tops[part][row], tops[part + 4][row]},
                     {totals[part][row], totals[part + 4][row]}, values);
}

// To out, in whole lines; `columns` is the number of the first piece among those of its rows.
template <typename Out, u32 pieces>
DEVICE void Store(const DecodeSm90Arguments& a, u32 sequence, u32 first_row, u32 columns,
                  const Merged<pieces>& merged) {
  constexpr u32 kColumns = pieces * kSm90PieceColumns, kRowPieces = kColumns * sizeof(Out) / 16;
  SHARED f32 all_factors[kWaves][8];
  alignas(16) SHARED Out tiles[kWaves][8][kColumns + 8];
  auto& factors = all_factors[wave_id()];
  auto& tile = tiles[wave_id()];
  const u32 lane = lane_id(), all = static_cast<u32>(a.q_len * a.heads);
  const i64 out_row = static_cast<i64>(sequence) * all + first_row;
  const bool empty = merged.total == 0.0f;
  if (lane < 8) {
    f32 factor = empty ? 0.0f : reciprocal(merged.total);
    if (a.kv_scale != nullptr) factor *= *a.kv_scale;
    factors[lane] = factor;
    if (columns == 0 && first_row + lane < all) {
      a.lse[out_row + lane] = empty ? -kInfinity : (merged.top + log2(merged.total)) * kLn2;
    }
  }
  wave_sync();
#pragma unroll
  for (u32 k = 0; k < 4; ++k) {
    const u32 row = lane % 4 * 2 + k % 2;
    const f32 factor = factors[row];
#pragma unroll
    for (u32 n = 0; n < pieces; ++n) {
      tile[row][sm90_column(n, lane, k, a.kv_scale != nullptr)] =
          static_cast<Out>(merged.sums[n][k] * factor);
    }
  }
  wave_sync();
#pragma unroll
  for (u32 i = lane; i < 8 * kRowPieces; i += kWaveSize) {
    const u32 row = i / kRowPieces, column = i % kRowPieces * (16 / sizeof(Out));
    if (first_row + row >= all) continue;
    Out* const to = static_cast<Out*>(a.out) + (out_row + row) * kSm90Latent;
    *reinterpret_cast<u32x4*>(to + columns * kSm90PieceColumns + column) =
        *reinterpret_cast<const u32x4*>(&tile[row][column]);
  }
}

// `waves` share a piece, or one takes `pieces`; so many parts of each are on their way.
template <typename Out, u32 waves, u32 pieces, u32 parts_at_once>
DEVICE void Merge(const DecodeSm90Arguments& a) {
  static_assert(waves == 1 || (waves == kWaves && pieces == 1));
  SHARED f32 weights[kWaves][parts_at_once + 1][8];
  const u32 tile = block_id_y(), sequence = block_id_z(), lane = lane_id();
  const u32 tile_rows = static_cast<u32>(a.tile_rows), two_eights = tile_rows == 16;
  const u32 strip = block_id_x() * (kWaves / waves) + wave_id() / waves;
  const u32 eight = strip & two_eights, columns = (strip >> two_eights) * pieces;
  const u32 row = eight * 8, turn = wave_id() % waves;
  const Parts parts = FindParts(a, sequence, tile);
  const auto* weights_at = sm90_weights(a.partial_lse, parts.first, tile_rows, row + lane % 8);
  const f32x4* values_at =
      sm90_partial(a.partial, parts.first, tile_rows, columns << two_eights | eight, lane);
  const u32 part_values = tile_rows * kSm90Latent / 4;  // from one part to the next
  wait_for_last_kernel();  // also where nothing is to do: what follows this kernel waits for it alone
  if (parts.count == 1) return;

  Merged<pieces> merged;
  for (u32 begin = turn; begin < parts.count; begin += waves * parts_at_once) {
    f32 tops[parts_at_once / 4], totals[parts_at_once / 4];
    f32x4 values[parts_at_once][pieces];
#pragma unroll
    for (u32 i = 0; i < parts_at_once / 4; ++i) {
      const u32 part = begin + (i * 4 + lane / 8) * waves;
      const auto weights = part < parts.count ? weights_at[part * tile_rows]
                                              : vector<f32, 2>{-kInfinity, 0.0f};
      tops[i] = weights[0], totals[i] = weights[1];
    }
#pragma unroll
    for (u32 i = 0; i < parts_at_once; ++i) {
      const u32 part = begin + i * waves;
#pragma unroll
      for (u32 n = 0; n < pieces; ++n) {
        values[i][n] = {};
        if (part >= parts.count) continue;
        values[i][n] = values_at[static_cast<i64>(part) * part_values + (n << two_eights) * kWaveSize];
      }
    }
    merged.template add<parts_at_once>(weights[wave_id()], tops, totals, values);
  }
  if constexpr (waves > 1) {
    AddWaves(merged);
    if (wave_id() != 0) return;
  }
  Store<Out>(a, sequence, tile * tile_rows + row, columns, merged);
}

}  // namespace

#define MERGE(name, Out, waves, pieces, parts)                                      \
  KERNEL(kSm90MergeThreads, 2) jax_mla_merge_sm90_##name##_##waves##x##pieces(      \
      const __attribute__((grid_constant)) DecodeSm90Arguments a) {                 \
    Merge<Out, waves, pieces, parts>(a);                                            \
  }
#define MERGES(name, Out) \
  MERGE(name, Out, 8, 1, 20) MERGE(name, Out, 1, 1, 16) MERGE(name, Out, 1, 4, 4)
MERGES(bf16, bf16)
MERGES(f16, f16)

}  // namespace jax_mla
