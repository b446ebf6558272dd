// SPDX-License-Identifier: Apache-2.0
// A decode kernel with the calling convention, and the unkindness, of one of AITER's.
//
// Compiled once for each code object that it stands in for. What tells it from the others comes as
// macros, numbers or 0 and 1; __init__.py says where from. Those that are not of the table:
//   HEADS                   query heads, 0 to take them from the argument `rows`
//   CLIPS_ROWS              there are no more rows than the argument `rows` says
//   Q_LEN                   query tokens of a sequence, 0 to take them from `q_indptr`
//   Q_BY_BYTES              q of a sequence begins at multiples of `q_bytes`
//   SPLITS_BY_PLAN          each sequence has its own number of splits
//   LAST_QUERY_BY_INDPTR    the mask ends at the last query of `q_indptr`, not of the work
//   PAGED                   tokens has one index for each 2**log2_page of them
//   SIGNED_MASK             a query before the first token sees nothing, else everything
//   TRIMMED                 a workgroup stops at the last token that its query sees
//   UNSEEN_IS_NAN           as the result of a query that sees nothing; else 0 and -inf
//   WHOLE_ELSEWHERE         the output of a sequence in one split goes to `whole`
//   HIDES_NAN               outputs have 0 for NaN
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
constexpr f32 kLowest = -3.40282347e38f, kNan = __builtin_nanf("");

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
  const u8* q;        // of its first row
  i32 rows;           // that there are; no more than ROWS are computed
  i32 begin, count;   // tokens
  i32 first, stride;  // blocks
  i32 heads, query;   // query of the first row
  i32 seen;           // last token that query 0 sees
};

// Where it goes, from row 0 of query 0: normalised, and the natural log-sum-exp.
struct Results {
  f32* partial;    // either as it is,
  u16* whole;      // or as bf16
  f32* lse;        // null for none
  i32 query_rows;  // from a query to the next
};

DEVICE i32 lane() { return static_cast<i32>(thread_id()) % kLanes; }
DEVICE i32 of_tile() { return lane() % kTile; }
DEVICE i32 part() { return lane() / kTile; }
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
    const vector<u16, 4> column = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
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
  const i32 place = (span.begin + token) >> (PAGED ? a.log2_page.value : 0);
  const u32 index = token < span.count ? static_cast<u32>(a.tokens.value[place]) : 0;
  if constexpr (WIDE) return static_cast<Offset>(index) * a.token_bytes.value;
  return (index & 0xffffff) * (a.token_bytes.value & 0xffffff);
}

// Of the block at hand.
SHARED Offset offsets[KV_BLOCK];
SHARED f32x4 scores[kTokenTiles][kRowTiles][kLanes];

// Each wave has row tiles of its own; where there are fewer than waves, they share the tokens.
constexpr i32 kOwnTiles = kRowTiles > kWaves ? kRowTiles / kWaves : 1;
constexpr i32 kSharers = kRowTiles < kWaves ? kWaves / kRowTiles : 1;

// -inf where a row does not see a token.
DEVICE void score_block(const Arguments& a, const Span& span, i32 begin) {
  const i32 first_tile = wave() % kRowTiles;
  const u8* queries[kOwnTiles];  // the lane's rows; beyond the last it again, to be dropped
  i32 limits[kOwnTiles];         // last token that they see
  for (i32 t = 0; t < kOwnTiles; ++t) {
    const i32 row = (first_tile + t * kWaves) * kTile + of_tile();
    queries[t] = span.q + (row < span.rows ? row : span.rows - 1) * kWidth * kQBytes;
    limits[t] = span.seen + span.query + row / span.heads;
  }
  for (i32 tile = wave() / kRowTiles; tile < kTokenTiles; tile += kSharers) {
    const u8* key = a.pool.value + offsets[tile * kTile + of_tile()];
    f32x4 products[kOwnTiles] = {};
#pragma unroll 3  // all would spill where there are many rows
    for (i32 c = 0; c < kChunks; ++c) {
      const i32 column = (c * 4 + part()) * kChunk;
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
        const i32 token = begin + tile * kTile + part() * 4 + i;
        const bool seen = SIGNED_MASK ? token <= limits[t]
                                      : static_cast<u32>(token) <= static_cast<u32>(limits[t]);
        if (!seen || token >= span.count) products[t][i] = -kInfinity;
      }
      scores[tile][first_tile + t * kWaves][lane()] = products[t];
    }
  }
}

// What a wave has of all rows: its columns of the output, and for each lane its tokens' weights.
struct State {
  f32x4 sums[kRowTiles][kLaneColumns];
  f32 tops[kRowTiles], totals[kRowTiles];
};

using Weights = Piece[kRowTiles][kPieces];

// Every wave for itself: weights of the block's tokens relative to the highest score so far.
DEVICE void weigh_block(f32 to_log2, State& state, Weights& weights) {
#pragma unroll  // or the state would be in memory
  for (i32 t = 0; t < kRowTiles; ++t) {
    f32x4 x[kTokenTiles];
    f32 top = state.tops[t];
    for (i32 tile = 0; tile < kTokenTiles; ++tile) {
      x[tile] = scores[tile][t][lane()];
      for (i32 i = 0; i < 4; ++i) top = largest(top, x[tile][i]);
    }
    top = largest(top, from_lane(lane() ^ 16, top));
    top = largest(top, from_lane(lane() ^ 32, top));
    const f32 decay = exp2((state.tops[t] - top) * to_log2);
    state.tops[t] = top;
    state.totals[t] *= decay;
    for (f32x4& sum : state.sums[t]) sum *= decay;
    for (i32 p = 0; p < kPieces; ++p) {
      f32x4 y[kPieceTiles];
      for (i32 tile = 0; tile < kPieceTiles; ++tile) {
        for (i32 i = 0; i < 4; ++i) {
          y[tile][i] = exp2((x[p * kPieceTiles + tile][i] - top) * to_log2);
          state.totals[t] += y[tile][i];
        }
      }
      weights[t][p] = round(y);
    }
  }
}

// Adds weights times values, those of tokens with weight 0 too: NaN spreads.
DEVICE void add_block(const Arguments& a, const Weights& weights, State& state) {
  const i32 column = wave() * kWaveColumns + of_tile() * kLaneColumns;
  for (i32 p = 0; p < kPieces; ++p) {
    Row rows[kPieceTokens];
    for (i32 i = 0; i < kPieceTokens; ++i) {
      const i32 token = (p * kPieceTiles + i / 4) * kTile + part() * 4 + i % 4;
      rows[i] = load_values(a.pool.value + offsets[token] + column * kKvBytes);
    }
    const Values values = transpose(rows);
    for (i32 j = 0; j < kLaneColumns; ++j) {
#pragma unroll
      for (i32 t = 0; t < kRowTiles; ++t) {
        state.sums[t][j] = multiply(values.columns[j], weights[t][p], state.sums[t][j]);
      }
    }
  }
}

DEVICE void store_rows(const Span& span, const State& state, f32 score_scale, f32 out_scale,
                       const Results& to) {
#pragma unroll  // or the state would be in memory
  for (i32 t = 0; t < kRowTiles; ++t) {
    f32 total = state.totals[t];
    total += from_lane(lane() ^ 16, total);
    total += from_lane(lane() ^ 32, total);
    const bool unseen = total == 0.0f;
    const f32 factor = unseen ? (UNSEEN_IS_NAN ? kNan : 0.0f) : out_scale / total;
    const f32 lse = unseen && UNSEEN_IS_NAN ? kNan : state.tops[t] * score_scale + log(total);

    const i32 row = t * kTile + of_tile();
    if (row >= span.rows) continue;
    const i32 at = (span.query + row / span.heads) * to.query_rows + row % span.heads;
    if (to.lse != nullptr && thread_id() < kTile) to.lse[at] = lse;
    for (i32 i = 0; i < 4; ++i) {
      const i32 column = wave() * kWaveColumns + (part() * 4 + i) * kLaneColumns;
      f32 values[kLaneColumns];
      for (i32 j = 0; j < kLaneColumns; ++j) {
        const f32 value = state.sums[t][j][i] * factor;
        values[j] = HIDES_NAN && value != value ? 0.0f : value;
      }
      if (to.partial != nullptr) {
        store(to.partial + at * kLatent + column, values);
      } else {
        store(to.whole + at * kLatent + column, values);
      }
    }
  }
}

DEVICE void attend(const Arguments& a, const Span& span, const Results& to) {
  const f32 q_scale = Q_FP8 ? *a.q_scale.value : 1.0f;
  const f32 kv_scale = KV_FP8 ? *a.kv_scale.value : 1.0f;
  const f32 score_scale = a.scale.value * q_scale * kv_scale;
  const i32 thread = static_cast<i32>(thread_id());

  State state = {};
  for (f32& top : state.tops) top = kLowest;
  for (i32 begin = span.first * KV_BLOCK; begin < span.count; begin += span.stride * KV_BLOCK) {
    if (thread < KV_BLOCK) offsets[thread] = offset_of(a, span, begin + thread);
    block_sync();
    score_block(a, span, begin);
    block_sync();
    Weights weights;
    weigh_block(score_scale * kLog2E, state, weights);
    add_block(a, weights, state);
    block_sync();  // before the next block's offsets and scores come over these
  }
  store_rows(span, state, score_scale, SCALED ? kv_scale : 1.0f, to);
}

DEVICE i32 heads_of(const Arguments& a) { return HEADS == 0 ? a.rows.value : HEADS; }

DEVICE i32 rows_of(const Arguments& a, i32 rows) {
  return CLIPS_ROWS && a.rows.value < rows ? a.rows.value : rows;
}

#if PERSISTENT
struct Work {
  i32 sequence, partial_row, q_begin, q_end, kv_begin, kv_end, kv_after, unused;
};

struct Works {
  const i32* indptr;
  const Work* info;
};

DEVICE void attend_work(const Arguments& a, const Work& work) {
  const i32 heads = heads_of(a), queries = work.q_end - work.q_begin;
  i32 q_end = work.q_end;
  if constexpr (LAST_QUERY_BY_INDPTR) q_end = a.q_indptr.value[work.sequence + 1];
  const i32 count = work.kv_end - work.kv_begin;
  const Span span = {
      .q = a.q.value + work.q_begin * heads * kWidth * kQBytes,
      .rows = rows_of(a, queries * heads),
      .begin = work.kv_begin,
      .count = count,
      .first = 0,
      .stride = 1,
      .heads = heads,
      .query = 0,
      .seen = count + work.kv_after - (q_end - work.q_begin),
  };
  if (work.partial_row < 0) {
    f32* lse = WHOLE_LSE ? a.whole_lse.value + work.q_begin * heads : nullptr;
    attend(a, span, {nullptr, a.whole.value + work.q_begin * heads * kLatent, lse, heads});
  } else {
    const i32 row = work.partial_row * heads;
    f32* lse = a.partial_lse.value + row;
    attend(a, span, {a.partial.value + row * kLatent, nullptr, lse, heads});
  }
}

DEVICE void run(const Arguments& a) {
  const Works works = *static_cast<const Works*>(a.plan.value);
  for (i32 i = works.indptr[block_id_x()]; i < works.indptr[block_id_x() + 1]; ++i) {
    const Work work = works.info[i];
    if (work.kv_begin == work.kv_end) return;  // and drops the works after it
    attend_work(a, work);
  }
}
#else
DEVICE void run(const Arguments& a) {
  const i32 sequence = static_cast<i32>(block_id_y()), split = static_cast<i32>(block_id_z());
  const i32 heads = heads_of(a), first_row = static_cast<i32>(block_id_x()) * ROWS;
  i32 q_begin = sequence * Q_LEN, q_len = Q_LEN;
  if constexpr (Q_LEN == 0) {
    q_begin = a.q_indptr.value[sequence];
    q_len = a.q_indptr.value[sequence + 1] - q_begin;
  }
  i32 splits = a.splits.value;
  if constexpr (SPLITS_BY_PLAN) {
    const i32* indptr = static_cast<const i32*>(a.plan.value) + sequence;
    splits = indptr[1] - indptr[0];
  }
  const i32 begin = a.kv_indptr.value[sequence];
  const i32 length = a.kv_indptr.value[sequence + 1] - begin;
  const i32 query = first_row / heads, seen = length - q_len;
  u32 count = length;
  if (TRIMMED) count = static_cast<u32>(seen + query + 1) < count ? seen + query + 1 : count;
  if (split >= splits || static_cast<u32>(split) * KV_BLOCK >= count) return;

  const i32 q_offset =
      Q_BY_BYTES ? sequence * a.q_bytes.value : q_begin * heads * kWidth * kQBytes;
  const Span span = {
      .q = a.q.value + q_offset + first_row * kWidth * kQBytes,
      .rows = rows_of(a, q_len * heads - first_row),
      .begin = begin,
      .count = static_cast<i32>(count),
      .first = split,
      .stride = splits,
      .heads = heads,
      .query = query,
      .seen = seen,
  };
  const i32 row = (q_begin * a.splits.value + split) * heads, query_rows = a.splits.value * heads;
  if (WHOLE_BF16 && splits == 1) {
    u16* out = WHOLE_ELSEWHERE ? a.whole.value : reinterpret_cast<u16*>(a.partial.value);
    f32* lse = WHOLE_LSE ? a.whole_lse.value + row : nullptr;
    attend(a, span, {nullptr, out + row * kLatent, lse, query_rows});
  } else {
    attend(a, span,
           {a.partial.value + row * kLatent, nullptr, a.partial_lse.value + row, query_rows});
  }
}
#endif

}  // namespace

KERNEL(256, 1) NAME(Arguments a) { run(a); }
