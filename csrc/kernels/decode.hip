// SPDX-License-Identifier: Apache-2.0
// Stage 1 of decode, on every target. What a block of threads does with each block of keys:
//
//   read      the rows of the next one into registers, and the page of the one after that, while
//             this one is computed
//   scores    S^T = K Q^T: a wave takes 16 of the 32 keys and a part of the width; Q stays in its
//             registers
//   softmax   16 neighbours to a row add up the parts, and leave the weights in shared memory
//   sum       O^T = V^T P^T: a wave takes a part of the latent columns, all rows and keys; O stays
//             in its registers. V is the first columns of the rows of K, loaded transposed
//
// Transposed, so that what a lane of an AMD wave gets of a product lies in one piece in shared
// memory. Rows of keys there lie apart by an odd multiple of 16 bytes, which keeps rows that are
// read together in different banks.
#include "decode.h"

#include "device.h"
#include "row.h"
#include "shares.h"
#include "softmax.h"

namespace jax_mla {
namespace {

constexpr u32 kRows = kDecodeRows, kKeys = kDecodeKvBlock;
constexpr u32 kWaves = kDecodeThreads / kWaveSize;
constexpr u32 kKeyTiles = kKeys / 16;
constexpr u32 kParts = kWaves / kKeyTiles;             // of the width, in a product of scores
constexpr u32 kSoftmaxLanes = kDecodeThreads / kRows;  // that share a row
constexpr u32 kLaneKeys = kKeys / kSoftmaxLanes;
constexpr u32 kResultSize = sizeof(Result) / sizeof(f32);
static_assert(kKeys * kRowThreads == kDecodeThreads && kRows <= kKeys && kRowThreads == 8);

// What the waves hand to one another.
template <typename Element, u32 width>
struct Exchange {
  alignas(16) Element keys[kKeys][width + 8];
  alignas(16) f32 scores[kParts][kRows][kKeys + 4];
  alignas(16) Element weights[kRows][kKeys + 8];
  f32 factors[kRows];
};

// How many keys a row of the sequence sees; none beyond the last row.
DEVICE u32 CountKeys(const DecodeArguments& a, const Segment& s, u32 row) {
  const u32 heads = static_cast<u32>(a.heads);
  const i32 seen = s.length - a.q_len + static_cast<i32>(row / heads) + 1;
  return row >= static_cast<u32>(a.q_len) * heads || seen < 0 ? 0 : static_cast<u32>(seen);
}

// Where a key lies. The page is on its way from memory until it is asked for.
struct Place {
  bool exists;
  i32 page;     // in the first of the kRowThreads neighbours that read the key, unclamped
  u32 in_page;  // row of the page
};

// None lies from `end` on.
DEVICE Place LookUp(const DecodeArguments& a, const Segment& s, u32 key, u32 end) {
  const u32 page_size = static_cast<u32>(a.page_size), slot = key / page_size;
  Place place = {key < end, 0, key - slot * page_size};
  if (place.exists && lane_id() % kRowThreads == 0) {
    place.page = a.page_indices[static_cast<i64>(s.sequence) * a.pages_per_seq + slot];
  }
  return place;
}

// The cache's row there, null where none is.
template <typename Element, u32 width>
DEVICE const Element* FindRow(const DecodeArguments& a, const Place& place) {
  i32 page = static_cast<i32>(first_of_8(static_cast<u32>(place.page)));
  if (!place.exists) return nullptr;
  page = page < 0 ? 0 : page >= a.pages ? a.pages - 1 : page;
  const i64 token = static_cast<i64>(page) * a.page_size + place.in_page;
  return static_cast<const Element*>(a.kv_pages) + token * width;
}

template <typename Element, typename Q, typename Kv, u32 latent, u32 rope>
DEVICE void DecodeSegment(const DecodeArguments& a, f32 kv_scale, f32 scale, const Segment& s,
                           Exchange<Element, latent + rope>& shared) {
  constexpr u32 kWidth = latent + rope, kDepth = kMatrixDepth;
  constexpr u32 kSteps = kWidth / kDepth, kOwnSteps = (kSteps + kParts - 1) / kParts;
  constexpr u32 kOwnColumns = latent / kWaves;  // of the output, a wave's
  using Part = Operand<Element, kDepth>;

  const u32 all = static_cast<u32>(a.q_len * a.heads);  // rows of the sequence
  const u32 first_row = s.tile * kRows, last_row = first_row + kRows - 1;
  const u32 sees = CountKeys(a, s, last_row < all ? last_row : all - 1);
  const u32 end = s.end * kKeys < sees ? s.end * kKeys : sees;
  u32 begin = s.begin * kKeys;  // of the block of keys

  const u32 thread = thread_id(), wave = wave_id();
  const u32 read_row_of = thread / kRowThreads;  // of a block of keys, or of q
  const u32 softmax_row = thread / kSoftmaxLanes, softmax_lane = thread % kSoftmaxLanes;
  Place place = LookUp(a, s, begin + read_row_of, end);
  RowPieces<Kv, kWidth> keys = {};
  read_row(keys, FindRow<Kv, kWidth>(a, place));
  place = LookUp(a, s, begin + kKeys + read_row_of, end);

  // q takes the way that keys take.
  const u32 q_row = first_row + read_row_of;
  const bool has_q = read_row_of < kRows && q_row < all;
  const Q* q_at = static_cast<const Q*>(a.q) + (static_cast<i64>(s.sequence) * all + q_row) * kWidth;
  RowPieces<Q, kWidth> q_pieces = {};
  read_row(q_pieces, has_q ? q_at : nullptr);
  block_sync();  // nobody reads what a segment before this one left
  write_row(shared.keys[read_row_of], q_pieces);
  block_sync();
  const u32 key_tile = wave % kKeyTiles * 16, part = wave / kKeyTiles;
  const u32 first_column = wave * kOwnColumns;
  const auto for_own_steps = [&](auto use) {
#pragma unroll
    for (u32 i = 0; i < kOwnSteps; ++i) {
      const u32 step = i * kParts + part;
      if (kSteps % kParts == 0 || step < kSteps) use(i, step);
    }
  };
  Part q[kOwnSteps];
  for_own_steps([&](u32 i, u32 step) {
    q[i] = load_operand<Element, kDepth>(
        [&](u32 row, u32 column) { return &shared.keys[row][step * kDepth + column]; });
  });

  const u32 seen = CountKeys(a, s, first_row + softmax_row);
  Softmax<kSoftmaxLanes> softmax;
  Result out[kOwnColumns / 16] = {};

  for (; begin < end; begin += kKeys) {
    block_sync();  // nobody reads the rows before these any more
    write_row(shared.keys[read_row_of], keys);
    block_sync();
    Part k[kOwnSteps];
    for_own_steps([&](u32 i, u32 step) {
      k[i] = load_operand<Element, kDepth>([&](u32 row, u32 column) {
        return &shared.keys[key_tile + row][step * kDepth + column];
      });
    });
    // Keys beyond the last leave the ones before in registers, which will weigh nothing.
    read_row(keys, FindRow<Kv, kWidth>(a, place));
    place = LookUp(a, s, begin + 2 * kKeys + read_row_of, end);
    keep_order();  // all loads on their way before the first product
    Result products = {};
    for_own_steps([&](u32 i, u32) { products = multiply_add(k[i], q[i], products); });
#pragma unroll
    for (u32 i = 0; i < kResultSize; ++i) {
      shared.scores[part][result_column(i)][key_tile + result_row(i)] = products[i];
    }
    block_sync();

    f32 scores[kLaneKeys];
    const u32 lane_key = softmax_lane * kLaneKeys;
#pragma unroll
    for (u32 i = 0; i < kLaneKeys; ++i) {
      f32 score = 0.0f;
      for (u32 p = 0; p < kParts; ++p) score += shared.scores[p][softmax_row][lane_key + i];
      scores[i] = begin + lane_key + i < seen ? score * scale : -kInfinity;
    }
    Part values[kKeys / kDepth][kOwnColumns / 16];  // come while weights are made
#pragma unroll
    for (u32 step = 0; step < kKeys / kDepth; ++step) {
      load_transposed([&](u32 row, u32 column) {
        return &shared.keys[step * kDepth + row][first_column + column];
      }, values[step]);
    }
    const f32 decay = update(softmax, scores);
    if (softmax_lane == 0) shared.factors[softmax_row] = decay;
#pragma unroll
    for (u32 i = 0; i < kLaneKeys; ++i) {
      shared.weights[softmax_row][lane_key + i] = static_cast<Element>(scores[i]);
    }
    block_sync();

    Part weights[kKeys / kDepth];
#pragma unroll
    for (u32 step = 0; step < kKeys / kDepth; ++step) {
      weights[step] = load_operand<Element, kDepth>(
          [&](u32 row, u32 column) { return &shared.weights[row][step * kDepth + column]; });
    }
    Result factors;
#pragma unroll
    for (u32 i = 0; i < kResultSize; ++i) factors[i] = shared.factors[result_column(i)];
#pragma unroll
    for (u32 i = 0; i < kOwnColumns / 16; ++i) out[i] *= factors;
#pragma unroll
    for (u32 step = 0; step < kKeys / kDepth; ++step) {
#pragma unroll
      for (u32 i = 0; i < kOwnColumns / 16; ++i) {
        out[i] = multiply_add(values[step][i], weights[step], out[i]);
      }
    }
  }

  // The sums go where the keys were, so that whoever knows a row's total takes it out in pieces.
  constexpr u32 kOutStride = latent + 4;
  static_assert(kRows * kOutStride * sizeof(f32) <= sizeof(shared.keys));
  f32* sums = reinterpret_cast<f32*>(shared.keys);
  block_sync();
#pragma unroll
  for (u32 i = 0; i < kOwnColumns / 16; ++i) {
#pragma unroll
    for (u32 j = 0; j < kResultSize; ++j) {
      const u32 column = first_column + transposed_column(i, result_row(j));
      sums[result_column(j) * kOutStride + column] = out[i][j];
    }
  }
  block_sync();
  f32 lse;
  f32 factor = finish(softmax, lse);
  if (first_row + softmax_row >= all) return;
  const f32* sum = sums + softmax_row * kOutStride;
  if (s.whole) {
    factor *= kv_scale;
    const i64 row = static_cast<i64>(s.sequence) * all + first_row + softmax_row;
    Element* out = static_cast<Element*>(a.out) + row * latent;
    for (u32 column = softmax_lane * 4; column < latent; column += kSoftmaxLanes * 4) {
      *reinterpret_cast<vector<Element, 4>*>(out + column) = __builtin_convertvector(
          *reinterpret_cast<const f32x4*>(sum + column) * factor, vector<Element, 4>);
    }
    if (softmax_lane == 0) a.lse[row] = lse;
  } else {
    const i64 row = static_cast<i64>(s.part) * kRows + softmax_row;
    for (u32 column = softmax_lane * 4; column < latent; column += kSoftmaxLanes * 4) {
      *reinterpret_cast<f32x4*>(a.partial + row * latent + column) =
          *reinterpret_cast<const f32x4*>(sum + column) * factor;
    }
    if (softmax_lane == 0) a.partial_lse[row] = lse;
  }
}

template <typename Element, typename Q, typename Kv, u32 latent, u32 rope>
DEVICE void Decode(const DecodeArguments& a) {
  SHARED Exchange<Element, latent + rope> shared;
  const f32 kv_scale = sizeof(Kv) == 1 ? *a.kv_scale : 1.0f;
  const f32 q_scale = sizeof(Q) == 1 ? *a.q_scale : 1.0f;
  const f32 scale = a.scale * kLog2E * q_scale * kv_scale;
  Segments<kKeys, kDecodePartBlocks> segments(a, count_tiles<kDecodeRows>(a));
  segments.find();
  for (Segment s; segments.next(s);) {
    DecodeSegment<Element, Q, Kv, latent, rope>(a, kv_scale, scale, s, shared);
  }
}

}  // namespace

// Products are made in the dtype of the output.
#define DECODE(name, Out, Q, Kv, latent, rope)                                             \
  KERNEL(kDecodeThreads, 1) jax_mla_decode_##name##_##latent##_##rope(DecodeArguments a) { \
    Decode<Out, Q, Kv, latent, rope>(a);                                                   \
  }
#define DECODE_DTYPES(latent, rope)            \
  DECODE(bf16, bf16, bf16, bf16, latent, rope) \
  DECODE(f16, f16, f16, f16, latent, rope)     \
  DECODE(fp8, bf16, fp8, fp8, latent, rope)    \
  DECODE(bf16_fp8, bf16, bf16, fp8, latent, rope)
DECODE_DTYPES(512, 64)
DECODE_DTYPES(256, 64)
DECODE_DTYPES(256, 32)
DECODE_DTYPES(512, 0)

}  // namespace jax_mla
