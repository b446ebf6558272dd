// SPDX-License-Identifier: Apache-2.0
// Decode on NVIDIA's Hopper GPUs, for rows of 512 + 64 elements.
//
// A block of threads has one wave that keeps a ring of stages of 16 keys filled by tensor copies, and
// eight that compute, on tiles of 64 keys. They read each key from shared memory once for the scores
// and once for the sum:
//
//   scores    S^T = K Q^T: a wave takes 16 keys and half of the width; Q stays in its registers
//   softmax   a wave takes one or two rows, all 64 keys, and leaves the weights in shared memory
//   sum       O^T = V^T P^T: a wave takes 64 of the latent columns; O stays in its registers. V is
//             the first columns of the rows of K, loaded transposed
//
// Keys are the long side of every product, so that 8 rows do with half the work of 16. Rows of keys
// follow each other without gaps: the copies swizzle lines of 128 (or 64) bytes, of which a row has
// nine, so that neither eight rows of one column nor eight columns of a row meet in a bank.
//
// An fp8 cache is multiplied in f16, which holds its numbers exactly. So does it those of q, which
// are scaled to it by a power of two for each row.
#include "decode_sm90.h"

#include "device.h"
#include "shares.h"
#include "sm90.h"
#include "softmax.h"

namespace jax_mla {
namespace {

constexpr u32 kLatent = kSm90Latent, kWidth = kSm90Width, kKeys = kSm90Keys;
constexpr u32 kStageKeys = 16;
constexpr u32 kTileStages = kKeys / kStageKeys;
constexpr u32 kWaves = 8;  // that compute
constexpr u32 kThreads = kWaves * kWaveSize;
constexpr u32 kLinesOfRow = 9;
constexpr u32 kSteps = kWidth / 16 / 2;  // of a product of scores, over half of the width
constexpr u32 kColumns = kLatent / kWaves;

DEVICE void ComputeSync() { group_sync<1, kThreads>(); }

template <typename Kv>
struct Cache {
  // In which products are made.
  using Element = Kv;
  static constexpr u32 kStages = 8;
};
template <>
struct Cache<fp8> {
  using Element = f16;
  static constexpr u32 kStages = 16;
};

template <typename Kv, u32 rows>
struct Shared {
  using Element = typename Cache<Kv>::Element;
  static constexpr u32 kStages = Cache<Kv>::kStages;
  static constexpr u32 kRowBytes = kWidth * sizeof(Kv);

  alignas(1024) u8 stages[kStages][kStageKeys * kRowBytes];
  alignas(16) Element q[rows][kWidth + 8];
  alignas(16) f32 scores[2][rows][kKeys + 8];
  alignas(16) Element weights[rows][kKeys + 8];
  alignas(8) f32 decays[rows];
  alignas(8) f32 factors[rows];
  f32 q_scales[rows];
  Barrier full[kStages], empty[kStages];

  // Where a byte of a stage lies, by the swizzle of lines of 128 or 64 bytes.
  METHOD const u8* at(u32 stage, u32 key, u32 byte) const {
    const u32 offset = key * kRowBytes + byte;
    return stages[stage] + (offset ^ (offset >> 7 & (sizeof(Kv) == 1 ? 3 : 7)) << 4);
  }
};

// A place in the ring of stages.
template <u32 stages>
struct Ring {
  u32 stage = 0;
  u32 parity = 0;
  METHOD void advance(u32 by) {
    stage += by;
    if (stage < stages) return;
    stage -= stages;
    parity ^= 1;
  }
  METHOD Ring after(u32 by) const {
    Ring ring = *this;
    ring.advance(by);
    return ring;
  }
};

// --- Copies ---------------------------------------------------------------------------------------

// Line of the cache at which a key lies.
DEVICE i32 FindLine(const DecodeSm90Arguments& a, const Segment& s, u32 key, u32 end) {
  if (key >= end) return 0;
  const u32 page_size = static_cast<u32>(a.page_size), slot = key / page_size;
  i32 page = a.page_indices[static_cast<i64>(s.sequence) * a.pages_per_seq + slot];
  page = page < 0 ? 0 : page >= a.pages ? a.pages - 1 : page;
  return static_cast<i32>((static_cast<u32>(page) * page_size + key - slot * page_size) *
                          kLinesOfRow);
}

// One wave. Each lane finds the lines of a box, and copies it when its turn comes.
template <typename Kv, u32 rows>
DEVICE void CopyKeys(const DecodeSm90Arguments& a, Shared<Kv, rows>& shared) {
  constexpr u32 kRowBytes = kWidth * sizeof(Kv);
  const u32 box = static_cast<u32>(a.box_keys), stage_boxes = kStageKeys / box;
  const u32 lane = lane_id();
  Ring<Cache<Kv>::kStages> ring;
  Segments<kKeys, kSm90PartBlocks> segments(a);
  for (Segment s; segments.next(s);) {
    const u32 length = static_cast<u32>(s.length);
    const u32 end = s.end * kKeys < length ? s.end * kKeys : length;
    u32 first = s.begin * kKeys;
    i32 line = FindLine(a, s, first + lane * box, end);
    for (; first < end; first += kWaveSize * box) {
      const i32 next_line = FindLine(a, s, first + (kWaveSize + lane) * box, end);
      for (u32 i = 0; i < kWaveSize && first + i * box < end; i += stage_boxes) {
        const u32 left = (end - first - i * box + box - 1) / box;
        const u32 boxes = left < stage_boxes ? left : stage_boxes;
        Barrier& full = shared.full[ring.stage];
        wait(shared.empty[ring.stage], ring.parity ^ 1);
        if (lane == i) arrive_and_expect(full, boxes * box * kRowBytes);
        if (lane - i < boxes) {
          copy_lines(shared.stages[ring.stage] + (lane - i) * box * kRowBytes, &a.kv_lines, line,
                     full);
        }
        wave_sync();
        ring.advance(1);
      }
      line = next_line;
    }
  }
}

// --- Queries --------------------------------------------------------------------------------------

// The rows of a tile to shared memory, and zeros for what it does not have.
template <typename Q, typename Kv, u32 rows>
DEVICE void LoadQ(const DecodeSm90Arguments& a, const Segment& s, Shared<Kv, rows>& shared) {
  constexpr u32 kLanes = kThreads / rows;  // that share a row
  constexpr u32 kElements = 16 / sizeof(Q), kPieces = kWidth / kElements;
  constexpr u32 kHeld = (kPieces + kLanes - 1) / kLanes;
  const u32 row = thread_id() / kLanes, lane = thread_id() % kLanes;
  const u32 all = static_cast<u32>(a.q_len * a.heads), number = s.tile * rows + row;
  const Q* from = static_cast<const Q*>(a.q) + (static_cast<i64>(s.sequence) * all + number) * kWidth;
  vector<Q, kElements> held[kHeld];
#pragma unroll
  for (u32 i = 0; i < kHeld; ++i) {
    const u32 piece = i * kLanes + lane;
    held[i] = {};
    if (number < all && piece < kPieces) {
      held[i] = *reinterpret_cast<const vector<Q, kElements>*>(from + piece * kElements);
    }
  }
  if constexpr (sizeof(Kv) == 2) {
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
      const u32 piece = i * kLanes + lane;
      if (piece >= kPieces) continue;
      *reinterpret_cast<vector<Q, kElements>*>(&shared.q[row][piece * kElements]) = held[i];
    }
  } else {
    f32 values[kHeld][kElements];
    f32 largest = 0.0f;
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
#pragma unroll
      for (u32 j = 0; j < kElements; j += 4) {
        vector<Q, 4> some;
        for (u32 k = 0; k < 4; ++k) some[k] = held[i][j + k];
        const f32x4 four = to_f32(some);
        for (u32 k = 0; k < 4; ++k) {
          values[i][j + k] = four[k];
          largest = max(largest, __builtin_fabsf(four[k]));
        }
      }
    }
    // 2^14 over the power of two below the largest, if f32 has that and what it undoes.
    const u32 exponent = __builtin_bit_cast(u32, reduce_max<kLanes>(largest)) >> 23;
    const u32 raised = exponent < 20 ? 248 : exponent > 253 ? 15 : 268 - exponent;
    const f32 factor = __builtin_bit_cast(f32, raised << 23);
    if (lane == 0) shared.q_scales[row] = __builtin_bit_cast(f32, (254 - raised) << 23);
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
      const u32 piece = i * kLanes + lane;
      if (piece >= kPieces) continue;
#pragma unroll
      for (u32 j = 0; j < kElements; j += 4) {
        const f32x4 four = {values[i][j], values[i][j + 1], values[i][j + 2], values[i][j + 3]};
        *reinterpret_cast<f16x4*>(&shared.q[row][piece * kElements + j]) = to_f16(four * factor);
      }
    }
  }
}

// --- Operands of products -------------------------------------------------------------------------

// Rows of q or of weights, `steps` of 16 elements from the first on: words[step][eight rows][word].
template <u32 rows, u32 steps, typename At>
DEVICE void LoadRows(u32 (&words)[steps][rows / 8][2], At at) {
  const u32 lane = lane_id();
#pragma unroll
  for (u32 step = 0; step < steps; step += 16 / rows) {
    if constexpr (rows == 16) {
      const auto x =
          load_matrices<false>(at(lane / 16 * 8 + lane % 8, step * 16 + lane / 8 % 2 * 8));
      words[step][0][0] = x[0], words[step][0][1] = x[1];
      words[step][1][0] = x[2], words[step][1][1] = x[3];
    } else {
      static_assert(steps % 2 == 0);
      const auto x = load_matrices<false>(at(lane % 8, step * 16 + lane / 8 * 8));
      words[step][0][0] = x[0], words[step][0][1] = x[1];
      words[step + 1][0][0] = x[2], words[step + 1][0][1] = x[3];
    }
  }
}

// Two fp8 numbers to f16, the one in the lower bits first.
DEVICE u32 Expand(u32 codes) {
  return __builtin_bit_cast(u32, pair_to_f16(static_cast<u16>(codes)));
}

// A step of 16 elements of q, in the order in which those of an fp8 row of keys come: lane l % 4 has
// four in a row.
template <typename Kv, u32 rows>
DEVICE void LoadQRows(u32 (&words)[kSteps][rows / 8][2], const Shared<Kv, rows>& shared,
                        u32 first) {
  if constexpr (sizeof(Kv) == 2) {
    LoadRows<rows>(words,
                    [&](u32 row, u32 column) { return &shared.q[row][first * 16 + column]; });
  } else {
    const u32 row = lane_id() / 4, column = lane_id() % 4 * 4;
#pragma unroll
    for (u32 step = 0; step < kSteps; ++step) {
#pragma unroll
      for (u32 eight = 0; eight < rows / 8; ++eight) {
        const auto x = *reinterpret_cast<const vector<u32, 2>*>(
            &shared.q[eight * 8 + row][(first + step) * 16 + column]);
        words[step][eight][0] = x[0], words[step][eight][1] = x[1];
      }
    }
  }
}

// --- The three products ---------------------------------------------------------------------------

// Scores of the 16 keys of a stage, half of the width: `first` is the first step of 16 elements.
template <typename Kv, u32 rows>
DEVICE void MultiplyKeys(f32 (&products)[rows / 8][4], const Shared<Kv, rows>& shared, u32 stage,
                          u32 first, const u32 (&q)[kSteps][rows / 8][2]) {
  using Element = typename Cache<Kv>::Element;
  const u32 key = lane_id() % 16, half = lane_id() / 16;
  f32 odd[rows / 8][4] = {};  // two sums, so that one can go on while the other waits
#pragma unroll
  for (u32 step = 0; step < kSteps; step += 2) {
    u32x4 k0, k1;
    if constexpr (sizeof(Kv) == 2) {
      const u32 byte = (first + step) * 32 + half * 16;
      k0 = load_matrices<false>(shared.at(stage, key, byte));
      k1 = load_matrices<false>(shared.at(stage, key, byte + 32));
    } else {
      const auto x = load_matrices<false>(shared.at(stage, key, (first + step + half) * 16));
      k0 = {Expand(x[0]), Expand(x[1]), Expand(x[0] >> 16), Expand(x[1] >> 16)};
      k1 = {Expand(x[2]), Expand(x[3]), Expand(x[2] >> 16), Expand(x[3] >> 16)};
    }
#pragma unroll
    for (u32 eight = 0; eight < rows / 8; ++eight) {
      multiply_add<Element>(products[eight], k0, q[step][eight]);
      multiply_add<Element>(odd[eight], k1, q[step + 1][eight]);
    }
  }
#pragma unroll
  for (u32 eight = 0; eight < rows / 8; ++eight) {
    for (u32 i = 0; i < 4; ++i) products[eight][i] += odd[eight][i];
  }
}

// Adds the 16 keys of a stage to the wave's columns, 16 at a time.
template <typename Kv, u32 rows>
DEVICE void MultiplyValues(f32 (&sums)[kColumns / 16][rows / 8][4], const Shared<Kv, rows>& shared,
                            u32 stage, u32 wave, const u32 (&weights)[rows / 8][2]) {
  using Element = typename Cache<Kv>::Element;
  const u32 lane = lane_id();
  if constexpr (sizeof(Kv) == 2) {
    const u32 key = lane / 16 * 8 + lane % 8, byte = wave * kColumns * 2 + lane / 8 % 2 * 16;
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; ++i) {
      const auto v = load_matrices<true>(shared.at(stage, key, byte + i * 32));
#pragma unroll
      for (u32 eight = 0; eight < rows / 8; ++eight) {
        multiply_add<Element>(sums[i][eight], v, weights[eight]);
      }
    }
  } else {
    const u32 key = lane % 16, byte = wave * kColumns + lane / 16 * 16;
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; i += 2) {
      // Each word has two columns of two keys: even columns first, then odd ones.
      auto x = load_matrices<true>(shared.at(stage, key, byte + i * 16));
      for (u32 j = 0; j < 4; ++j) x[j] = permute_bytes(x[j], 0x3120);
#pragma unroll
      for (u32 j = 0; j < 2; ++j) {
        const u32x4 v = {Expand(x[2 * j]), Expand(x[2 * j] >> 16), Expand(x[2 * j + 1]),
                         Expand(x[2 * j + 1] >> 16)};
#pragma unroll
        for (u32 eight = 0; eight < rows / 8; ++eight) {
          multiply_add<Element>(sums[i + j][eight], v, weights[eight]);
        }
      }
    }
  }
}

// The column of element i of sums, of the lane's in 16.
template <typename Kv>
DEVICE u32 FindColumn(u32 i) {
  const u32 row = lane_id() / 4;
  return sizeof(Kv) == 2 ? i / 2 * 8 + row : row * 2 + i / 2;
}

// V of keys that do not exist has to be a number: 0, in the last stage with keys, of which there
// are `keys`.
template <typename Kv, u32 rows>
DEVICE void ClearKeys(Shared<Kv, rows>& shared, u32 stage, u32 keys, u32 thread, u32 threads) {
  constexpr u32 kRowBytes = kWidth * sizeof(Kv);
  for (u32 i = keys * kRowBytes + thread * 16; i < kStageKeys * kRowBytes; i += threads * 16) {
    *reinterpret_cast<u32x4*>(shared.stages[stage] + i) = u32x4{};
  }
  order_writes_before_copies();
}

// --- One segment ----------------------------------------------------------------------------------

template <typename Out>
DEVICE void Store(Out* to, f32 x) { *to = static_cast<Out>(x); }

template <typename Out, typename Q, typename Kv, u32 rows>
DEVICE void Compute(const DecodeSm90Arguments& a, Shared<Kv, rows>& shared) {
  using Element = typename Cache<Kv>::Element;
  constexpr u32 kEights = rows / 8;
  constexpr u32 kSoftmaxLanes = kThreads / rows, kLaneKeys = kKeys / kSoftmaxLanes;
  const u32 thread = thread_id(), wave = wave_id(), lane = lane_id();
  const u32 group = wave % kTileStages, half = wave / kTileStages;
  const u32 row = thread / kSoftmaxLanes, first_key = thread % kSoftmaxLanes * kLaneKeys;
  const u32 all = static_cast<u32>(a.q_len * a.heads);
  f32 scale = a.scale * kLog2E;
  if (a.q_scale != nullptr) scale *= *a.q_scale;
  if (a.kv_scale != nullptr) scale *= *a.kv_scale;

  Ring<Cache<Kv>::kStages> ring;
  Segments<kKeys, kSm90PartBlocks> segments(a);
  for (Segment s; segments.next(s);) {
    LoadQ<Q>(a, s, shared);
    ComputeSync();
    u32 q[kSteps][kEights][2];
    LoadQRows(q, shared, half * kSteps);
    f32 row_scale = scale;
    if constexpr (sizeof(Kv) == 1) row_scale *= shared.q_scales[row];

    const u32 number = s.tile * rows + row;  // of the softmax's row, in the sequence
    const i32 sees = s.length - a.q_len + 1 + static_cast<i32>(number / static_cast<u32>(a.heads));
    const u32 seen = number >= all || sees < 0 ? 0 : static_cast<u32>(sees);
    Softmax<kSoftmaxLanes> softmax;
    f32 sums[kColumns / 16][kEights][4] = {};

    for (u32 block = s.begin; block < s.end; ++block) {
      const u32 left = static_cast<u32>(s.length) - block * kKeys;
      const u32 keys = left < kKeys ? left : kKeys;
      const u32 stages = (keys + kStageKeys - 1) / kStageKeys;

      if (group < stages) {
        const auto at = ring.after(group);
        wait(shared.full[at.stage], at.parity);
        f32 products[kEights][4] = {};
        MultiplyKeys(products, shared, at.stage, half * kSteps, q);
        if (group == stages - 1 && keys % kStageKeys != 0) {
          // The other half of this stage may still be read, but no row of it that counts.
          ClearKeys(shared, at.stage, keys % kStageKeys, half * kWaveSize + lane, 2 * kWaveSize);
        }
#pragma unroll
        for (u32 eight = 0; eight < kEights; ++eight) {
          for (u32 i = 0; i < 4; ++i) {
            shared.scores[half][eight * 8 + lane % 4 * 2 + i % 2]
                         [group * kStageKeys + i / 2 * 8 + lane / 4] = products[eight][i];
          }
        }
      }
      ComputeSync();

      f32 scores[kLaneKeys];
#pragma unroll
      for (u32 i = 0; i < kLaneKeys; ++i) {
        const u32 key = first_key + i;
        const f32 score = shared.scores[0][row][key] + shared.scores[1][row][key];
        scores[i] = block * kKeys + key < seen ? score * row_scale : -kInfinity;
      }
      const f32 decay = update(softmax, scores);
      if (first_key == 0) shared.decays[row] = decay;
#pragma unroll
      for (u32 i = 0; i < kLaneKeys; i += 2) {
        *reinterpret_cast<vector<Element, 2>*>(&shared.weights[row][first_key + i]) =
            vector<Element, 2>{static_cast<Element>(scores[i]), static_cast<Element>(scores[i + 1])};
      }
      ComputeSync();

      u32 weights[kTileStages][kEights][2];
      LoadRows<rows>(weights,
                      [&](u32 r, u32 column) { return &shared.weights[r][column]; });
#pragma unroll
      for (u32 eight = 0; eight < kEights; ++eight) {
        const auto decays = *reinterpret_cast<const vector<f32, 2>*>(
            &shared.decays[eight * 8 + lane % 4 * 2]);
#pragma unroll
        for (u32 i = 0; i < kColumns / 16; ++i) {
          for (u32 j = 0; j < 4; ++j) sums[i][eight][j] *= decays[j % 2];
        }
      }
#pragma unroll
      for (u32 stage = 0; stage < kTileStages; ++stage) {
        if (stage >= stages) continue;
        const auto at = ring.after(stage);
        wait(shared.full[at.stage], at.parity);  // has ended: what was copied is seen from here on
        MultiplyValues(sums, shared, at.stage, wave, weights[stage]);
        wave_sync();
        if (lane == 0) arrive(shared.empty[at.stage]);
      }
      ring.advance(stages);
    }

    f32 lse;
    f32 factor = finish(softmax, lse);
    if (first_key == 0) {
      if (s.whole && a.kv_scale != nullptr) factor *= *a.kv_scale;
      shared.factors[row] = factor;
      if (number < all) {
        if (s.whole) {
          a.lse[static_cast<i64>(s.sequence) * all + number] = lse;
        } else {
          a.partial_lse[static_cast<i64>(s.part) * rows + row] = lse;
        }
      }
    }
    ComputeSync();
#pragma unroll
    for (u32 eight = 0; eight < kEights; ++eight) {
#pragma unroll
      for (u32 j = 0; j < 2; ++j) {
        const u32 r = eight * 8 + lane % 4 * 2 + j;
        if (s.tile * rows + r >= all) continue;
        const f32 f = shared.factors[r];
        const i64 out_row = static_cast<i64>(s.sequence) * all + s.tile * rows + r;
        const i64 partial_row = static_cast<i64>(s.part) * rows + r;
#pragma unroll
        for (u32 i = 0; i < kColumns / 16; ++i) {
#pragma unroll
          for (u32 k = j; k < 4; k += 2) {
            const u32 column = wave * kColumns + i * 16 + FindColumn<Kv>(k);
            const f32 x = f == 0.0f ? 0.0f : sums[i][eight][k] * f;
            if (s.whole) {
              Store(static_cast<Out*>(a.out) + out_row * kLatent + column, x);
            } else {
              a.partial[partial_row * kLatent + column] = x;
            }
          }
        }
      }
    }
  }
}

extern __attribute__((shared)) __attribute__((aligned(1024))) u8 dynamic_shared[];

template <typename Out, typename Q, typename Kv, u32 rows>
DEVICE void Decode(const DecodeSm90Arguments& a) {
  using Block = Shared<Kv, rows>;
  static_assert(sizeof(Block) <= kSm90SharedBytes);
  Block& shared = *reinterpret_cast<Block*>(dynamic_shared);
  if (wave_id() == kWaves) {
    // Pages can be looked up only when lengths are there; a short table is on its way by then.
    const i64 ahead = static_cast<i64>(lane_id()) * 32;
    if (ahead < static_cast<i64>(a.batch) * a.pages_per_seq) prefetch(a.page_indices + ahead);
  }
  if (thread_id() == 0) {
    for (u32 i = 0; i < Block::kStages; ++i) {
      init(shared.full[i], 1);
      init(shared.empty[i], kWaves);
    }
    publish_barriers();
  }
  block_sync();
  start_next_kernel();
  if (wave_id() < kWaves) {
    take_registers<rows == 8 ? 224 : 232>();
    Compute<Out, Q>(a, shared);
  } else {
    leave_registers<rows == 8 ? 56 : 40>();
    if (wave_id() == kWaves) CopyKeys(a, shared);
  }
}

// --- Stage 2 --------------------------------------------------------------------------------------

constexpr u32 kMergeWaves = kSm90MergeThreads / kWaveSize;
constexpr u32 kMergeColumns = 4 * kWaveSize;  // that a wave merges
constexpr u32 kMergeLoads = 4;                // partial results that it has on their way
static_assert(kMergeColumns * kSm90MergeChunks == kLatent);

// Blocks of keys of the sequences before one, and of all. Every thread takes part.
struct Counts {
  u32 before;
  u32 total;
};
DEVICE Counts CountAllBlocks(const DecodeSm90Arguments& a, u32 sequence) {
  SHARED u32 sums[2][kMergeWaves];
  u32 before = 0, total = 0;
  for (u32 i = thread_id(); i < static_cast<u32>(a.batch); i += kSm90MergeThreads) {
    const u32 blocks = count_blocks<kKeys>(get_length(a, i));
    total += blocks;
    before += i < sequence ? blocks : 0;
  }
  sums[0][wave_id()] = wave_sum(before);
  sums[1][wave_id()] = wave_sum(total);
  block_sync();
  Counts counts = {0, 0};
  for (u32 i = 0; i < kMergeWaves; ++i) {
    counts.before += sums[0][i];
    counts.total += sums[1][i];
  }
  return counts;
}

// Parts of a job: rows of partial results that are tile_rows apart, from the first on.
struct Parts {
  u32 first;
  u32 count;
};
DEVICE Parts FindParts(const DecodeSm90Arguments& a, const Counts& counts, u32 sequence, u32 tile,
                        u32 blocks) {
  const u32 tiles = count_tiles(a), job = sequence * tiles + tile;
  if (blocks == 0) return {0, 0};
  if (a.num_splits > 0) {
    const u32 splits = static_cast<u32>(a.num_splits);
    return {job * splits, blocks < splits ? blocks : splits};
  }
  const Shares shares =
      share_blocks(counts.total * tiles, static_cast<u32>(a.workers), kSm90PartBlocks);
  const u32 first = counts.before * tiles + tile * blocks, owner = shares.owner(first);
  return {owner + job, shares.owner(first + blocks - 1) - owner + 1};
}

// A weighted sum of normalised results, the weights over e^top.
struct Merged {
  f32 top = -kInfinity;
  f32 total = 0.0f;
  f32x4 sum = {};

  // Takes in results of such weights; one of weight 0 may hold anything.
  template <u32 count>
  METHOD void add(const f32 (&lse)[count], const f32 (&totals)[count],
                  const f32x4 (&values)[count]) {
    f32 new_top = top;
    // Negated, so that NaN is not passed over: it must come out.
    for (u32 i = 0; i < count; ++i) new_top = !(lse[i] <= new_top) ? lse[i] : new_top;
    if (new_top == -kInfinity) return;  // nothing but empty ones so far
    const f32 decay = exp(top - new_top);
    top = new_top;
    total *= decay;
    sum *= decay;
#pragma unroll
    for (u32 i = 0; i < count; ++i) {
      const f32 weight = exp(lse[i] - top);
      if (weight == 0.0f) continue;
      total += weight * totals[i];
      sum += weight * values[i];
    }
  }
};

// Each wave takes 128 columns of a row, or every eighth part of them (merge_waves).
template <typename Out>
DEVICE void Merge(const DecodeSm90Arguments& a) {
  const u32 waves = static_cast<u32>(a.merge_waves), heads = static_cast<u32>(a.heads);
  const u32 item = block_id_x() * (kMergeWaves / waves) + wave_id() / waves;
  const u32 head = item / kSm90MergeChunks, chunk = item % kSm90MergeChunks;
  const u32 query = block_id_y(), sequence = block_id_z();
  const u32 column = chunk * kMergeColumns + lane_id() * 4;
  const u32 row = query * heads + head, tile_rows = static_cast<u32>(a.tile_rows);
  const u32 blocks = count_blocks<kKeys>(get_length(a, sequence));
  Counts counts = {};
  if (a.num_splits == 0) counts = CountAllBlocks(a, sequence);
  wait_for_last_kernel();
  if (head >= heads) return;
  const Parts parts = FindParts(a, counts, sequence, row / tile_rows, blocks);
  if (parts.count == 1) return;

  Merged merged;
  for (u32 i = wave_id() % waves; i < parts.count; i += waves * kMergeLoads) {
    f32 lse[kMergeLoads], totals[kMergeLoads];
    f32x4 values[kMergeLoads];
#pragma unroll
    for (u32 j = 0; j < kMergeLoads; ++j) {
      const u32 part = i + j * waves;
      const bool exists = part < parts.count;
      const i64 at = static_cast<i64>(parts.first + part) * tile_rows + row % tile_rows;
      lse[j] = -kInfinity;
      totals[j] = 1.0f;
      values[j] = {};
      if (exists) {
        lse[j] = a.partial_lse[at];
        values[j] = *reinterpret_cast<const f32x4*>(a.partial + at * kLatent + column);
      }
    }
    merged.add(lse, totals, values);
  }

  if (waves > 1) {
    SHARED f32 tops[kMergeWaves], totals[kMergeWaves];
    SHARED f32x4 sums[kMergeWaves][kWaveSize];
    const u32 wave = wave_id(), lane = lane_id();
    tops[wave] = merged.top;
    totals[wave] = merged.total;
    sums[wave][lane] = merged.sum;
    block_sync();
    if (wave != 0) return;
    f32 all_tops[kMergeWaves], all_totals[kMergeWaves];
    f32x4 all_sums[kMergeWaves];
#pragma unroll
    for (u32 i = 0; i < kMergeWaves; ++i) {
      all_tops[i] = tops[i];
      all_totals[i] = totals[i];
      all_sums[i] = sums[i][lane];
    }
    merged = Merged();
    merged.add(all_tops, all_totals, all_sums);
  }
  const bool empty = merged.total == 0.0f;
  f32 factor = empty ? 0.0f : 1.0f / merged.total;
  if (a.kv_scale != nullptr) factor *= *a.kv_scale;
  const i64 out_row = (static_cast<i64>(sequence) * a.q_len + query) * a.heads + head;
  *reinterpret_cast<vector<Out, 4>*>(static_cast<Out*>(a.out) + out_row * kLatent + column) =
      __builtin_convertvector(merged.sum * factor, vector<Out, 4>);
  if (chunk == 0 && lane_id() == 0) {
    a.lse[out_row] = empty ? -kInfinity : merged.top + log(merged.total);
  }
}

}  // namespace

#define KERNEL_ARGUMENTS const __attribute__((grid_constant)) DecodeSm90Arguments a
#define DECODE(name, Out, Q, Kv, rows)                                            \
  KERNEL(kSm90Threads, 1) jax_mla_decode_sm90_##name##_##rows(KERNEL_ARGUMENTS) { \
    Decode<Out, Q, Kv, rows>(a);                                                  \
  }
#define DECODE_ROWS(name, Out, Q, Kv) DECODE(name, Out, Q, Kv, 8) DECODE(name, Out, Q, Kv, 16)
DECODE_ROWS(bf16, bf16, bf16, bf16)
DECODE_ROWS(f16, f16, f16, f16)
DECODE_ROWS(fp8, bf16, fp8, fp8)
DECODE_ROWS(bf16_fp8, bf16, bf16, fp8)

KERNEL(kSm90MergeThreads, 1) jax_mla_merge_sm90_bf16(KERNEL_ARGUMENTS) { Merge<bf16>(a); }
KERNEL(kSm90MergeThreads, 1) jax_mla_merge_sm90_f16(KERNEL_ARGUMENTS) { Merge<f16>(a); }

}  // namespace jax_mla
