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
#include "arguments.h"
#include "operands.h"

namespace {

constexpr f32 kLowest = -3.40282347e38f, kNan = __builtin_nanf("");

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
DEVICE f32 largest(f32 x, f32 y) { return x > y ? x : y; }

DEVICE f32 from_lane(i32 source, f32 x) {
  return __builtin_bit_cast(
      f32, __builtin_amdgcn_ds_bpermute(source * 4, __builtin_bit_cast(i32, x)));
}

// Where a token's row begins in the pool; past the span's end it is the first row.
DEVICE u64 offset_of(const Arguments& a, const Span& span, i32 token) {
  const i32 place = (span.begin + token) >> (PAGED ? a.log2_page.value : 0);
  const u32 index = token < span.count ? static_cast<u32>(a.tokens.value[place]) : 0;
  if constexpr (WIDE) return static_cast<u64>(index) * a.token_bytes.value;
  return (index & 0xffffff) * (a.token_bytes.value & 0xffffff);  // 32 bits
}

// Of the block at hand.
SHARED u64 offsets[KV_BLOCK];
SHARED f32x4 scores[kTokenTiles][kRowTiles][kLanes];
SHARED Piece weights[kPieces][kRowTiles][kLanes];
SHARED f32 factors[ROWS];  // of the sums so far; at the end of all

// Each wave has row tiles of its own; where there are fewer than waves, some share one.
constexpr i32 kOwnTiles = kRowTiles > kWaves ? kRowTiles / kWaves : 1;
constexpr i32 kSharers = kRowTiles < kWaves ? kWaves / kRowTiles : 1;
DEVICE i32 own_tile(i32 t) { return wave() % kRowTiles + t * kWaves; }
DEVICE bool is_owner() { return wave() < kRowTiles; }

// -inf where a row does not see a token. Sharers of a row tile share the tokens.
DEVICE void score_block(const Arguments& a, const Span& span, i32 begin) {
  const u8* queries[kOwnTiles];  // the lane's rows; beyond the last it again, to be dropped
  i32 limits[kOwnTiles];         // last token that they see
  for (i32 t = 0; t < kOwnTiles; ++t) {
    const i32 row = own_tile(t) * kTile + of_tile();
    queries[t] = span.q + (row < span.rows ? row : span.rows - 1) * kWidth * kQBytes;
    limits[t] = span.seen + span.query + row / span.heads;
  }
  for (i32 tile = wave() / kRowTiles; tile < kTokenTiles; tile += kSharers) {
    const u8* key = a.pool.value + offsets[tile * kTile + of_tile()];
    f32x4 products[kOwnTiles] = {};
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
      scores[tile][own_tile(t)][lane()] = products[t];
    }
  }
}

// Of a lane's row in each row tile of its wave: the highest score, and the sum of the weights
// relative to it of the tokens that the lane has.
struct Softmax {
  f32 tops[kOwnTiles], totals[kOwnTiles];
};

DEVICE void weigh_block(f32 to_log2, Softmax& softmax) {
  for (i32 t = 0; t < kOwnTiles; ++t) {
    f32x4 x[kTokenTiles];
    f32 top = softmax.tops[t];
    for (i32 tile = 0; tile < kTokenTiles; ++tile) {
      x[tile] = scores[tile][own_tile(t)][lane()];
      for (i32 i = 0; i < 4; ++i) top = largest(top, x[tile][i]);
    }
    top = largest(top, from_lane(lane() ^ 16, top));
    top = largest(top, from_lane(lane() ^ 32, top));
    const f32 decay = exp2((softmax.tops[t] - top) * to_log2);
    softmax.tops[t] = top;
    softmax.totals[t] *= decay;
    for (i32 p = 0; p < kPieces; ++p) {
      f32x4 y[kPieceTiles];
      for (i32 tile = 0; tile < kPieceTiles; ++tile) {
        for (i32 i = 0; i < 4; ++i) {
          y[tile][i] = exp2((x[p * kPieceTiles + tile][i] - top) * to_log2);
          softmax.totals[t] += y[tile][i];
        }
      }
      weights[p][own_tile(t)][lane()] = round(y);
    }
    if (part() == 0) factors[own_tile(t) * kTile + of_tile()] = decay;
  }
}

// Columns of the output of all rows: a wave's are next to each other, and so are a lane's.
struct Sums {
  f32x4 tiles[kRowTiles][kLaneColumns];
};

// Adds weights times values, those of tokens with weight 0 too: NaN spreads.
DEVICE void add_block(const Arguments& a, Sums& sums) {
#pragma unroll  // or the sums would be in memory
  for (i32 t = 0; t < kRowTiles; ++t) {
    const f32 decay = factors[t * kTile + of_tile()];
    for (f32x4& sum : sums.tiles[t]) sum *= decay;
  }
  const i32 column = wave() * kWaveColumns + of_tile() * kLaneColumns;
#pragma unroll 1  // or registers would spill
  for (i32 p = 0; p < kPieces; ++p) {
    Row rows[kPieceTokens];
    for (i32 i = 0; i < kPieceTokens; ++i) {
      const i32 token = (p * kPieceTiles + i / 4) * kTile + part() * 4 + i % 4;
      rows[i] = load_values(a.pool.value + offsets[token] + column * kKvBytes);
    }
    const Values values = transpose(rows);
#pragma unroll
    for (i32 t = 0; t < kRowTiles; ++t) {
      const Piece weight = weights[p][t][lane()];
      for (i32 j = 0; j < kLaneColumns; ++j) {
        sums.tiles[t][j] = multiply(values.columns[j], weight, sums.tiles[t][j]);
      }
    }
  }
}

// Row r of the workgroup, from row 0 of query 0 of the results.
DEVICE i32 result_row(const Span& span, const Results& to, i32 row) {
  return (span.query + row / span.heads) * to.query_rows + row % span.heads;
}

// The log-sum-exp, and what the sums have to be multiplied with.
DEVICE void finish(const Span& span, const Softmax& softmax, f32 score_scale, f32 out_scale,
                   const Results& to) {
  for (i32 t = 0; t < kOwnTiles; ++t) {
    f32 total = softmax.totals[t];
    total += from_lane(lane() ^ 16, total);
    total += from_lane(lane() ^ 32, total);
    if (part() != 0) continue;
    const bool unseen = total == 0.0f;
    const i32 row = own_tile(t) * kTile + of_tile();
    factors[row] = unseen ? (UNSEEN_IS_NAN ? kNan : 0.0f) : out_scale / total;
    if (to.lse == nullptr || row >= span.rows) continue;
    const f32 lse = softmax.tops[t] * score_scale + log(total);
    to.lse[result_row(span, to, row)] = unseen && UNSEEN_IS_NAN ? kNan : lse;
  }
}

DEVICE void store_sums(const Span& span, const Sums& sums, const Results& to) {
#pragma unroll
  for (i32 t = 0; t < kRowTiles; ++t) {
    const i32 row = t * kTile + of_tile();
    if (row >= span.rows) continue;
    const i64 begin = static_cast<i64>(result_row(span, to, row)) * kLatent;
    for (i32 i = 0; i < 4; ++i) {
      const i32 column = wave() * kWaveColumns + (part() * 4 + i) * kLaneColumns;
      f32 values[kLaneColumns];
      for (i32 j = 0; j < kLaneColumns; ++j) {
        const f32 value = sums.tiles[t][j][i] * factors[row];
        values[j] = HIDES_NAN && value != value ? 0.0f : value;
      }
      if (to.partial != nullptr) {
        store(to.partial + begin + column, values);
      } else {
        store(to.whole + begin + column, values);
      }
    }
  }
}

DEVICE void attend(const Arguments& a, const Span& span, const Results& to) {
  const f32 q_scale = Q_FP8 ? *a.q_scale.value : 1.0f;
  const f32 kv_scale = KV_FP8 ? *a.kv_scale.value : 1.0f;
  const f32 score_scale = a.scale.value * q_scale * kv_scale;
  const i32 thread = static_cast<i32>(thread_id());

  Sums sums = {};
  Softmax softmax = {};
  for (f32& top : softmax.tops) top = kLowest;
  for (i32 begin = span.first * KV_BLOCK; begin < span.count; begin += span.stride * KV_BLOCK) {
    if (thread < KV_BLOCK) offsets[thread] = offset_of(a, span, begin + thread);
    block_sync();
    score_block(a, span, begin);
    block_sync();
    if (is_owner()) weigh_block(score_scale * kLog2E, softmax);
    block_sync();
    add_block(a, sums);
    block_sync();
  }
  if (is_owner()) finish(span, softmax, score_scale, SCALED ? kv_scale : 1.0f, to);
  block_sync();
  store_sums(span, sums, to);
  block_sync();
}

DEVICE i32 heads_of(const Arguments& a) { return HEADS == 0 ? a.rows.value : HEADS; }

DEVICE i32 rows_of(const Arguments& a, i32 rows) {
  return CLIPS_ROWS && a.rows.value < rows ? a.rows.value : rows;
}

#if PERSISTENT
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
  Results to = {.partial = nullptr, .whole = nullptr, .lse = nullptr, .query_rows = heads};
  if (work.partial_row < 0) {
    to.whole = a.whole.value + work.q_begin * heads * kLatent;
    if (WHOLE_LSE) to.lse = a.whole_lse.value + work.q_begin * heads;
  } else {
    to.partial = a.partial.value + work.partial_row * heads * kLatent;
    to.lse = a.partial_lse.value + work.partial_row * heads;
  }
  attend(a, span, to);
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
  const i32 row = (q_begin * a.splits.value + split) * heads;
  Results to = {
      .partial = a.partial.value + row * kLatent,
      .whole = nullptr,
      .lse = a.partial_lse.value + row,
      .query_rows = a.splits.value * heads,
  };
  if (WHOLE_BF16 && splits == 1) {
    u16* whole = WHOLE_ELSEWHERE ? a.whole.value : reinterpret_cast<u16*>(a.partial.value);
    to = {nullptr, whole + row * kLatent, nullptr, to.query_rows};
  }
  attend(a, span, to);
}
#endif

}  // namespace

KERNEL(256, 1) NAME(Arguments a) { run(a); }
