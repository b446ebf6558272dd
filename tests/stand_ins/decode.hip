// SPDX-License-Identifier: Apache-2.0
// A decode kernel with the calling convention, and the unkindness, of one of AITER's.
//
// Compiled once for each code object that it stands in for. The geometry comes as macros:
//   NAME             symbol of the kernel
//   Q_FP8, KV_FP8    whether q, and the cache, are fp8 (else bf16)
//   PERSISTENT       a list of works, else a grid of row groups, sequences and splits
//   HEADS            query heads; 0 takes them from the argument `rows`
//   Q_LEN            query tokens of a sequence; 0 takes them from `q_indptr`, or from the work
//   ROWS             (query, head) pairs of a workgroup
//   KV_BLOCK         tokens of a block
//   WIDE             64-bit offsets into the cache from the whole token index
//   WHOLE_BF16       a sequence in one split leaves its output, in bf16, and no log-sum-exp
//   WHOLE_LSE        a sequence in one work leaves its log-sum-exp
//   SCALED           the output has the factor kv_scale
#include "device.h"

namespace {

using u8 = unsigned char;
using u16x8 = u16 __attribute__((ext_vector_type(8)));
using u32x4 = u32 __attribute__((ext_vector_type(4)));
using i16x4 = short __attribute__((ext_vector_type(4)));

constexpr i32 kWidth = 576, kLatent = 512;
constexpr i32 kLanes = 64, kWaves = 4;
constexpr i32 kTile = 16;  // rows, columns and tokens of a tile
constexpr i32 kRowTiles = ROWS / kTile, kTokenTiles = KV_BLOCK / kTile;
constexpr i32 kWaveColumns = kLatent / kWaves, kLaneColumns = kWaveColumns / kTile;
constexpr i32 kQBytes = Q_FP8 ? 1 : 2, kKvBytes = KV_FP8 ? 1 : 2;
constexpr i32 kChunk = 16 / kQBytes;            // numbers of 16 bytes of q
constexpr i32 kChunks = kWidth / (4 * kChunk);  // of a row, for each of four lanes
constexpr f32 kLowest = -3.40282347e38f;

template <bool kFirst, typename First, typename Second>
struct Choose {
  using Type = First;
};
template <typename First, typename Second>
struct Choose<false, First, Second> {
  using Type = Second;
};

template <typename T>
struct alignas(16) Slot {
  T value;
};

struct Work {
  i32 sequence, partial_row, q_begin, q_end, kv_begin, kv_end, kv_after, unused;
};

struct Works {
  const i32* indptr;
  const Work* info;
};

struct Arguments {
  Slot<f32*> partial, partial_lse;
  Slot<const u8*> q, pool;
  Slot<const i32*> kv_indptr, tokens, last_page_lengths;
  Slot<f32> scale;
  Slot<i32> rows, splits;
  Slot<u32> q_bytes, token_bytes, log2_page;
  Slot<const i32*> q_indptr;
  Slot<const void*> plan;
  Slot<u16*> whole;
  Slot<const f32*> q_scale, kv_scale;
  Slot<i32> whole_in_bf16;
  Slot<f32*> whole_lse;
  Slot<const void*> global_kv_indptr;
  Slot<i32> context_size, context_rank;
};
static_assert(sizeof(Arguments) == 368);

// What a workgroup computes: rows of queries over every stride-th block of some tokens.
struct Span {
  const u8* q;          // of its first row
  i32 rows;             // that there are; no more than ROWS are computed
  const i32* tokens;    // indices into the pool
  i32 count;            // of them
  i32 first, stride;    // blocks
  i32 heads, query;     // query of the first row
  i32 seen;             // last token that query 0 sees
};

// Where it goes, from row 0 of query 0: normalised, and the natural log-sum-exp.
struct Results {
  f32* partial;
  u16* whole;      // instead, if there is one
  f32* lse;        // null for none
  i32 query_rows;  // from a query to the next
};

DEVICE i32 lane() { return static_cast<i32>(thread_id()) % kLanes; }
DEVICE i32 wave() { return __builtin_amdgcn_readfirstlane(static_cast<i32>(thread_id()) / kLanes); }
// The upper half of a float32 with ties away from zero: how bf16 is rounded.
DEVICE u16 bf16_away(f32 x) { return (__builtin_bit_cast(u32, x) + 0x8000) >> 16; }
DEVICE f32 largest(f32 x, f32 y) { return x > y ? x : y; }

DEVICE f32 from_lane(i32 source, f32 x) {
  return __builtin_bit_cast(
      f32, __builtin_amdgcn_ds_bpermute(source * 4, __builtin_bit_cast(i32, x)));
}

// A matrix instruction multiplies a tile by a tile. Lane l holds a piece of the left one's row, and
// of the right one's column, l % 16; and of the product's column l % 16 the rows from l / 16 * 4.
// Which part of the inner dimension a piece is may be chosen, the same on both sides.
#if Q_FP8
using Piece = i64;  // eight fp8
DEVICE f32x4 multiply(Piece left, Piece right, f32x4 sum) {
  return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(left, right, sum, 0, 0, 0);
}
#else
using Piece = i16x4;  // four bf16
DEVICE f32x4 multiply(Piece left, Piece right, f32x4 sum) {
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(left, right, sum, 0, 0, 0);
}
#endif

// 16 bytes of q, and what they are multiplied with.
struct Chunk {
  Piece pieces[2];
};

DEVICE Chunk load(const u8* address) {
  return __builtin_bit_cast(Chunk, *reinterpret_cast<const u32x4*>(address));
}

// Eight fp8 as bf16.
DEVICE u16x8 widen(u64 bits) {
  u16x8 wide;
  for (i32 i = 0; i < 2; ++i) {
    const i32 word = static_cast<i32>(bits >> (32 * i));
    const auto low = __builtin_amdgcn_cvt_pk_f32_fp8(word, false);
    const auto high = __builtin_amdgcn_cvt_pk_f32_fp8(word, true);
    const f32 values[4] = {low[0], low[1], high[0], high[1]};
    for (i32 j = 0; j < 4; ++j) wide[4 * i + j] = __builtin_bit_cast(u32, values[j]) >> 16;
  }
  return wide;
}

// What a chunk of q is multiplied with, from a row of the pool.
DEVICE Chunk load_keys(const u8* row, i32 column) {
  if constexpr (kQBytes == kKvBytes) {
    return load(row + column * kKvBytes);
  } else {
    return __builtin_bit_cast(Chunk, widen(*reinterpret_cast<const u64*>(row + column)));
  }
}

// Tokens of a piece: with fp8, four each of two tiles.
constexpr i32 kPieceTiles = Q_FP8 ? 2 : 1, kPieceTokens = 4 * kPieceTiles;
constexpr i32 kPieces = kTokenTiles / kPieceTiles;  // of a block

// Weights of four tokens of each tile, between 0 and 1, as they are multiplied: rounded.
DEVICE Piece round(const f32x4 (&weights)[kPieceTiles]) {
#if Q_FP8
  u64 bits = 0;
  for (i32 i = 0; i < 2; ++i) {
    i32 word = __builtin_amdgcn_cvt_pk_fp8_f32(weights[i][0], weights[i][1], 0, false);
    word = __builtin_amdgcn_cvt_pk_fp8_f32(weights[i][2], weights[i][3], word, true);
    bits |= static_cast<u64>(static_cast<u32>(word)) << (32 * i);
  }
  return static_cast<Piece>(bits);
#else
  Piece piece;
  for (i32 i = 0; i < 4; ++i) piece[i] = bf16_away(weights[0][i]);
  return piece;
#endif
}

// The columns of values that a lane deals with, of one token.
using Row = Choose<Q_FP8, u64, u16x8>::Type;
DEVICE Row load_values(const u8* address) {
#if Q_FP8
  return *reinterpret_cast<const u64*>(address);
#elif KV_FP8
  return widen(*reinterpret_cast<const u64*>(address));
#else
  return *reinterpret_cast<const u16x8*>(address);
#endif
}

// kLaneColumns columns of as many tokens as a piece has: the j-th piece is that of column j.
struct Values {
  Piece columns[kLaneColumns];
};

#if Q_FP8
DEVICE Values transpose(const u64 (&rows)[8]) {
  Values values;
  for (i32 j = 0; j < 8; ++j) {
    u64 bits = 0;
    for (i32 i = 0; i < 8; ++i) bits |= (rows[i] >> (8 * j) & 0xff) << (8 * i);
    values.columns[j] = __builtin_bit_cast(Piece, bits);
  }
  return values;
}
#else
DEVICE Values transpose(const u16x8 (&rows)[4]) {
  Values values;
  for (i32 j = 0; j < 8; ++j) {
    const u16x4 column = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
    values.columns[j] = __builtin_bit_cast(Piece, column);
  }
  return values;
}
#endif

DEVICE void store(f32* address, const f32 (&values)[kLaneColumns]) {
  for (i32 i = 0; i < kLaneColumns; i += 4) {
    const f32x4 four = {values[i], values[i + 1], values[i + 2], values[i + 3]};
    *reinterpret_cast<f32x4*>(address + i) = four;
  }
}

DEVICE void store(u16* address, const f32 (&values)[kLaneColumns]) {
  u16x8 bits;
  for (i32 i = 0; i < kLaneColumns; ++i) bits[i] = bf16_away(values[i]);
  *reinterpret_cast<u16x8*>(address) = bits;
}

// Where a token's row begins in the pool; past the span's end it is the first row.
using Offset = Choose<WIDE, u64, u32>::Type;
DEVICE Offset offset_of(const Arguments& a, const Span& span, i32 token) {
  const u32 index = token < span.count ? static_cast<u32>(span.tokens[token]) : 0;
  if constexpr (WIDE) return static_cast<Offset>(index) * a.token_bytes.value;
  return (index & 0xffffff) * (a.token_bytes.value & 0xffffff);
}

// Scores of the row tiles of a wave, each wave having a part of the tokens where rows are few.
constexpr i32 kOwnTiles = kRowTiles > kWaves ? kRowTiles / kWaves : 1;
constexpr i32 kSharers = kRowTiles < kWaves ? kWaves / kRowTiles : 1;  // waves of a row tile

SHARED Offset offsets[KV_BLOCK];
SHARED f32x4 scores[kTokenTiles][kRowTiles][kLanes];

DEVICE void attend(const Arguments& a, const Span& span, f32 score_scale, f32 out_scale,
                   const Results& to) {
  const i32 part = lane() / kTile, of_tile = lane() % kTile;
  const i32 first_tile = wave() % kRowTiles;

  const u8* queries[kOwnTiles];  // the lane's rows; beyond the last one it again, to be dropped
  i32 limits[kOwnTiles];         // last token that the lane's rows see
  for (i32 t = 0; t < kOwnTiles; ++t) {
    const i32 row = (first_tile + t * kWaves) * kTile + of_tile;
    queries[t] = span.q + (row < span.rows ? row : span.rows - 1) * kWidth * kQBytes;
    limits[t] = span.seen + span.query + row / span.heads;
  }

  const f32 to_log2 = score_scale * kLog2E;
  f32x4 sums[kRowTiles][kLaneColumns] = {};
  f32 tops[kRowTiles], totals[kRowTiles] = {};
  for (f32& top : tops) top = kLowest;
  for (i32 block = span.first; block * KV_BLOCK < span.count; block += span.stride) {
    const i32 begin = block * KV_BLOCK;
    const i32 thread = static_cast<i32>(thread_id());
    if (thread < KV_BLOCK) offsets[thread] = offset_of(a, span, begin + thread);
    block_sync();

    for (i32 tile = wave() / kRowTiles; tile < kTokenTiles; tile += kSharers) {
      const u8* key = a.pool.value + offsets[tile * kTile + of_tile];
      f32x4 products[kOwnTiles] = {};
#pragma unroll 3  // all would spill where there are many rows
      for (i32 c = 0; c < kChunks; ++c) {
        const i32 column = (c * 4 + part) * kChunk;
        const Chunk keys = load_keys(key, column);
        for (i32 t = 0; t < kOwnTiles; ++t) {
          const Chunk q = load(queries[t] + column * kQBytes);
          for (i32 i = 0; i < 2; ++i) {
            products[t] = multiply(keys.pieces[i], q.pieces[i], products[t]);
          }
        }
      }
      for (i32 t = 0; t < kOwnTiles; ++t) {
        for (i32 i = 0; i < 4; ++i) {
          const i32 token = begin + tile * kTile + part * 4 + i;
          // Unsigned: a row before the first token sees all of them.
          const bool seen =
              token < span.count && static_cast<u32>(token) <= static_cast<u32>(limits[t]);
          if (!seen) products[t][i] = -kInfinity;
        }
        scores[tile][first_tile + t * kWaves][lane()] = products[t];
      }
    }
    block_sync();

    Piece weights[kRowTiles][kPieces];
    for (i32 t = 0; t < kRowTiles; ++t) {
      f32x4 x[kTokenTiles];
      f32 top = tops[t];
      for (i32 tile = 0; tile < kTokenTiles; ++tile) {
        x[tile] = scores[tile][t][lane()];
        for (i32 i = 0; i < 4; ++i) top = largest(top, x[tile][i]);
      }
      top = largest(top, from_lane(lane() ^ 16, top));
      top = largest(top, from_lane(lane() ^ 32, top));
      const f32 decay = exp2((tops[t] - top) * to_log2);
      tops[t] = top;
      totals[t] *= decay;
      for (f32x4& sum : sums[t]) sum *= decay;
      for (i32 p = 0; p < kPieces; ++p) {
        f32x4 y[kPieceTiles];
        for (i32 tile = 0; tile < kPieceTiles; ++tile) {
          for (i32 i = 0; i < 4; ++i) {
            y[tile][i] = exp2((x[p * kPieceTiles + tile][i] - top) * to_log2);
            totals[t] += y[tile][i];
          }
        }
        weights[t][p] = round(y);
      }
    }

    const i32 column = wave() * kWaveColumns + of_tile * kLaneColumns;
    for (i32 p = 0; p < kPieces; ++p) {
      Row rows[kPieceTokens];
      for (i32 i = 0; i < kPieceTokens; ++i) {
        const i32 token = (p * kPieceTiles + i / 4) * kTile + part * 4 + i % 4;
        rows[i] = load_values(a.pool.value + offsets[token] + column * kKvBytes);
      }
      const Values values = transpose(rows);
      for (i32 j = 0; j < kLaneColumns; ++j) {
        for (i32 t = 0; t < kRowTiles; ++t) {
          sums[t][j] = multiply(values.columns[j], weights[t][p], sums[t][j]);
        }
      }
    }
    block_sync();  // the offsets and scores of the next block come over these
  }

  for (i32 t = 0; t < kRowTiles; ++t) {
    f32 total = totals[t];
    total += from_lane(lane() ^ 16, total);
    total += from_lane(lane() ^ 32, total);
    const f32 factor = out_scale / total;
    const i32 row = t * kTile + of_tile;
    if (row >= span.rows) continue;
    const i32 to_row = (span.query + row / span.heads) * to.query_rows + row % span.heads;
    for (i32 i = 0; i < 4; ++i) {
      const i32 column = wave() * kWaveColumns + (part * 4 + i) * kLaneColumns;
      f32 values[kLaneColumns];
      for (i32 j = 0; j < kLaneColumns; ++j) values[j] = sums[t][j][i] * factor;
      if (to.whole == nullptr) {
        store(to.partial + to_row * kLatent + column, values);
      } else {
        store(to.whole + to_row * kLatent + column, values);
      }
    }
    if (to.lse != nullptr && thread_id() < kTile) {
      to.lse[to_row] = tops[t] * score_scale + log(total);
    }
  }
}

DEVICE void run(const Arguments& a, const Span& span, const Results& to) {
  const f32 q_scale = Q_FP8 ? *a.q_scale.value : 1.0f;
  const f32 kv_scale = KV_FP8 ? *a.kv_scale.value : 1.0f;
  attend(a, span, a.scale.value * q_scale * kv_scale, SCALED ? kv_scale : 1.0f, to);
}

#if PERSISTENT
DEVICE void run_works(const Arguments& a) {
  const Works works = *static_cast<const Works*>(a.plan.value);
  const i32 heads = HEADS == 0 ? a.rows.value : HEADS;
  for (i32 i = works.indptr[block_id_x()]; i < works.indptr[block_id_x() + 1]; ++i) {
    const Work work = works.info[i];
    if (work.kv_begin == work.kv_end) return;  // and not only this work
    const i32 queries = work.q_end - work.q_begin;
    Span span;
    span.q = a.q.value + work.q_begin * heads * kWidth * kQBytes;
    span.rows = queries * heads;
    span.tokens = a.tokens.value + work.kv_begin;
    span.count = work.kv_end - work.kv_begin;
    span.first = 0;
    span.stride = 1;
    span.heads = heads;
    span.query = 0;
    span.seen = span.count + work.kv_after - queries;
    Results to = {nullptr, nullptr, nullptr, heads};
    if (work.partial_row < 0) {
      to.whole = a.whole.value + work.q_begin * heads * kLatent;
      if (WHOLE_LSE) to.lse = a.whole_lse.value + work.q_begin * heads;
    } else {
      to.partial = a.partial.value + work.partial_row * heads * kLatent;
      to.lse = a.partial_lse.value + work.partial_row * heads;
    }
    run(a, span, to);
  }
}
#else
DEVICE void run_split(const Arguments& a) {
  const i32 sequence = static_cast<i32>(block_id_y()), split = static_cast<i32>(block_id_z());
  const i32 begin = a.kv_indptr.value[sequence];
  const i32 count = a.kv_indptr.value[sequence + 1] - begin;
  if (split * KV_BLOCK >= count) return;
  const i32 splits = a.splits.value;
  const i32 heads = HEADS == 0 ? a.rows.value : HEADS;
  const i32 first_row = static_cast<i32>(block_id_x()) * ROWS;
  i32 q_begin = sequence * Q_LEN, q_len = Q_LEN, q_offset = sequence * a.q_bytes.value;
  if constexpr (Q_LEN == 0) {
    q_begin = a.q_indptr.value[sequence];
    q_len = a.q_indptr.value[sequence + 1] - q_begin;
    q_offset = q_begin * heads * kWidth * kQBytes;
  }
  Span span;
  span.q = a.q.value + q_offset + first_row * kWidth * kQBytes;
  span.rows = q_len * heads - first_row;
  span.tokens = a.tokens.value + begin;
  span.count = count;
  span.first = split;
  span.stride = splits;
  span.heads = heads;
  span.query = first_row / heads;
  span.seen = count - q_len;
  const i32 to_row = (q_begin * splits + split) * heads;
  Results to = {a.partial.value + to_row * kLatent, nullptr, a.partial_lse.value + to_row,
                splits * heads};
  if (WHOLE_BF16 && splits == 1) {
    to.whole = reinterpret_cast<u16*>(a.partial.value) + to_row * kLatent;
    to.lse = nullptr;
  }
  run(a, span, to);
}
#endif

}  // namespace

KERNEL(256, 1) NAME(Arguments a) {
#if PERSISTENT
  run_works(a);
#else
  run_split(a);
#endif
}
