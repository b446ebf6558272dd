// SPDX-License-Identifier: Apache-2.0
// Decode on NVIDIA's Hopper GPUs, for rows of 512 + 64 elements.
//
// A block of threads has one wave that finds out what the block has to do, one that keeps a ring of
// tiles of 64 keys filled by tensor copies, two that bring a short page table while the lengths are on
// their way, and sixteen that compute. These read each key from shared memory once for the scores and
// once for the sum:
//
//   scores    S^T = K Q^T: a wave takes 16 keys and a quarter of the width; Q stays in its registers
//   softmax   a wave takes a row, all 64 keys, and leaves the weights in shared memory
//   sum       O^T = V^T P^T: a wave takes 32 of the latent columns; O stays in its registers. V is
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
#include "partial_sm90.h"
#include "shares.h"
#include "sm90.h"
#include "softmax.h"

namespace jax_mla {
namespace {

constexpr u32 kLatent = kSm90Latent, kWidth = kSm90Width;
constexpr u32 kLinesOfRow = 9;
constexpr u32 kKeys = kSm90KvBlock;  // of a tile
constexpr u32 kStepKeys = 16;        // of a matrix instruction
constexpr u32 kTileSteps = kKeys / kStepKeys;
constexpr u32 kSegments = 4;         // dealt at once
constexpr u32 kTable = 2048;         // entries of a page table that is copied

constexpr u32 kWaves = 16;  // that compute
constexpr u32 kThreads = kWaves * kWaveSize;
constexpr u32 kCopyWave = kWaves, kDealWave = kWaves + 1, kTableWave = kWaves + 2;
constexpr u32 kTableThreads = kSm90Threads - kTableWave * kWaveSize;
constexpr u32 kQuarters = kWaves / kTileSteps;   // of the width, in the scores
constexpr u32 kSteps = kWidth / 16 / kQuarters;  // of 16 elements of a quarter
constexpr u32 kLaneKeys = kKeys / kWaveSize;     // in the softmax
constexpr u32 kColumns = kLatent / kWaves;       // of the sum

using Work = Segments<kKeys, kSm90PartBlocks>;

DEVICE void ComputeSync() { group_sync<1, kThreads>(); }

template <typename Kv>
struct Cache {
  // In which products are made.
  using Element = Kv;
  static constexpr u32 kTiles = 2;  // in the ring
};
template <>
struct Cache<fp8> {
  using Element = f16;
  static constexpr u32 kTiles = 4;
};

template <typename Kv, u32 rows>
struct Shared {
  using Element = typename Cache<Kv>::Element;
  static constexpr u32 kTiles = Cache<Kv>::kTiles;
  static constexpr u32 kRowBytes = kWidth * sizeof(Kv);

  alignas(1024) u8 tiles[kTiles][kKeys * kRowBytes];
  alignas(16) Element q[rows][kWidth + 8];
  alignas(16) f32 scores[kQuarters][rows][kKeys + 4];
  alignas(16) Element weights[rows][kKeys + 8];
  alignas(8) f32 decays[rows];
  alignas(8) f32 factors[rows];
  f32 q_scales[rows];
  i32 pages[kTable];
  Segment segments[kSegments];
  Barrier full[kTiles], empty[kTiles];
  Barrier dealt[kSegments], done[kSegments];
  Barrier table;

  // Where a byte of a key lies, by the swizzle of lines of 128 or 64 bytes.
  METHOD const u8* at(u32 tile, u32 key, u32 byte) const {
    const u32 offset = key * kRowBytes + byte;
    return tiles[tile] + (offset ^ (offset >> 7 & (sizeof(Kv) == 1 ? 3 : 7)) << 4);
  }
};

// A place in a ring of `size`, by how many were entered before.
template <u32 size>
struct Ring {
  u32 count = 0;
  METHOD u32 at() const { return count % size; }
  METHOD u32 parity() const { return count / size % 2; }
  METHOD Ring after(u32 by) const { return {count + by}; }
};

// The keys of a segment, end not included.
struct Keys {
  u32 begin;
  u32 end;
};
DEVICE Keys FindKeys(const Segment& s) {
  const u32 length = static_cast<u32>(s.length), end = s.end * kKeys;
  return {s.begin * kKeys, end < length ? end : length};
}

// --- Segments -------------------------------------------------------------------------------------

// An empty one after the last.
DEVICE Segment NextSegment(Work& work) {
  Segment s = {};
  work.next(s);
  return s;
}

// One wave finds what the block has to do, ahead of those that do it.
template <typename Kv, u32 rows>
DEVICE void DealSegments(Shared<Kv, rows>& shared, Work& work) {
  work.find();
  for (Ring<kSegments> turn;; turn = turn.after(1)) {
    const Segment s = NextSegment(work);
    wait(shared.done[turn.at()], turn.parity() ^ 1);
    if (lane_id() == 0) {
      shared.segments[turn.at()] = s;
      arrive(shared.dealt[turn.at()]);
    }
    if (s.end == 0) return;
  }
}

// The next one, empty after the last.
template <typename Kv, u32 rows>
DEVICE const Segment& TakeSegment(Shared<Kv, rows>& shared, const Ring<kSegments>& turn) {
  wait(shared.dealt[turn.at()], turn.parity());
  return shared.segments[turn.at()];
}
// By every wave that took it.
template <typename Kv, u32 rows>
DEVICE void LeaveSegment(Shared<Kv, rows>& shared, const Ring<kSegments>& turn) {
  wave_sync();
  if (lane_id() == 0) arrive(shared.done[turn.at()]);
}

// --- Copies ---------------------------------------------------------------------------------------

// A short page table is copied while the lengths, which decide on the entries, are on their way.
DEVICE bool IsShort(const DecodeSm90Arguments& a) {
  return static_cast<i64>(a.batch) * a.pages_per_seq <= kTable;
}
template <typename Kv, u32 rows>
DEVICE void StartTable(const DecodeSm90Arguments& a, Shared<Kv, rows>& shared) {
  const u32 count = IsShort(a) ? static_cast<u32>(a.batch * a.pages_per_seq) : 0;
  for (u32 i = thread_id() - kTableWave * kWaveSize; i < count; i += kTableThreads) {
    copy_word_async(&shared.pages[i], &a.page_indices[i]);
  }
  copy_commit();
}
template <typename Kv, u32 rows>
DEVICE void FinishTable(Shared<Kv, rows>& shared) {
  copy_wait<0, 0>();
  arrive(shared.table);
}

// Where keys lie. What can be is computed before the lengths are there, for which all wait.
class Table {
 public:
  METHOD Table(const DecodeSm90Arguments& a, const i32 (&copied)[kTable])
      : pages_(IsShort(a) ? copied : a.page_indices),
        pages_per_seq_(a.pages_per_seq),
        last_page_(a.pages - 1),
        page_size_(static_cast<u32>(a.page_size)) {
    asm volatile("" : "+l"(pages_), "+r"(page_size_.value), "+r"(page_size_.inverse));
  }

  struct Place {
    i32 page;
    u32 row;
  };
  METHOD Place find(u32 sequence, u32 key) const {
    const u32 slot = page_size_.divide(key);
    return {pages_[sequence * pages_per_seq_ + slot], key - slot * page_size_.value};
  }
  // The line of the cache at which the key begins.
  METHOD i32 line(const Place& place) const {
    const i32 page = place.page < 0 ? 0 : place.page > last_page_ ? last_page_ : place.page;
    return static_cast<i32>((static_cast<u32>(page) * page_size_.value + place.row) * kLinesOfRow);
  }

 private:
  const i32* pages_;
  i64 pages_per_seq_;
  i32 last_page_;
  Divisor page_size_;
};

// One wave. Each lane finds the lines of a box, and copies it when its turn comes.
template <typename Kv, u32 rows>
DEVICE void CopyKeys(const DecodeSm90Arguments& a, Shared<Kv, rows>& shared, const Table& table) {
  constexpr u32 kRowBytes = kWidth * sizeof(Kv);
  const u32 shift = static_cast<u32>(a.box_shift), box = 1u << shift, lane = lane_id();
  const u32 boxes = kKeys >> shift < kWaveSize ? kKeys >> shift : kWaveSize;  // at once
  Ring<Cache<Kv>::kTiles> ring;
  wait(shared.table, 0);
  for (Ring<kSegments> turn;; turn = turn.after(1)) {
    const Segment& s = TakeSegment(shared, turn);
    if (s.end == 0) return;
    const Keys keys = FindKeys(s);
    const u32 count = keys.end - keys.begin;
    auto find = [&](u32 key) {
      return key < count ? table.find(s.sequence, keys.begin + key) : Table::Place{};
    };
    Table::Place place = find(lane << shift);
    for (u32 first = 0; first < count; first += kWaveSize << shift) {
      const i32 line = table.line(place);
      const u32 mine = first + (lane << shift), next = mine + (kWaveSize << shift);
      // On its way while these are copied.
      place = find(next);
      for (u32 i = 0; i < kWaveSize && first + (i << shift) < count; i += boxes) {
        const u32 key = first + (i << shift);
        const auto tile = ring.after(key / kKeys);
        if (key % kKeys == 0) wait(shared.empty[tile.at()], tile.parity() ^ 1);
        if (lane - i < boxes && mine < count) {
          Barrier& full = shared.full[tile.at()];
          if (mine % kKeys == 0) {
            const u32 left = (count - mine + box - 1) >> shift << shift;
            arrive_and_expect(full, (left < kKeys ? left : kKeys) * kRowBytes);
          }
          copy_lines(shared.tiles[tile.at()] + mine % kKeys * kRowBytes, &a.kv_lines, line, full);
        }
        wave_sync();
      }
    }
    ring = ring.after((count + kKeys - 1) / kKeys);
    LeaveSegment(shared, turn);
  }
}

// --- Queries --------------------------------------------------------------------------------------

// The rows of a tile to shared memory, one a wave, and zeros for what it does not have.
template <typename Q, typename Kv, u32 rows>
DEVICE void LoadQ(const DecodeSm90Arguments& a, const Segment& s, Shared<Kv, rows>& shared) {
  constexpr u32 kElements = 16 / sizeof(Q), kPieces = kWidth / kElements;
  constexpr u32 kHeld = (kPieces + kWaveSize - 1) / kWaveSize;
  const u32 row = wave_id(), lane = lane_id();
  if (row >= rows) return;
  const u32 all = static_cast<u32>(a.q_len * a.heads), number = s.tile * rows + row;
  const Q* from = static_cast<const Q*>(a.q) + (static_cast<i64>(s.sequence) * all + number) * kWidth;
  vector<Q, kElements> held[kHeld];
#pragma unroll
  for (u32 i = 0; i < kHeld; ++i) {
    const u32 piece = i * kWaveSize + lane;
    held[i] = {};
    if (number < all && piece < kPieces) {
      held[i] = *reinterpret_cast<const vector<Q, kElements>*>(from + piece * kElements);
    }
  }
  if constexpr (sizeof(Kv) == 2) {
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
      const u32 piece = i * kWaveSize + lane;
      if (piece >= kPieces) continue;
      *reinterpret_cast<vector<Q, kElements>*>(&shared.q[row][piece * kElements]) = held[i];
    }
  } else {
    auto four = [&](u32 i, u32 j) {
      return to_f32(vector<Q, 4>{held[i][j], held[i][j + 1], held[i][j + 2], held[i][j + 3]});
    };
    f32 largest = 0.0f;
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
#pragma unroll
      for (u32 j = 0; j < kElements; j += 4) {
        const f32x4 x = four(i, j);
        for (u32 k = 0; k < 4; ++k) largest = max(largest, __builtin_fabsf(x[k]));
      }
    }
    // 2^14 over the power of two below the largest, if f32 has that and what it undoes.
    const u32 exponent = __builtin_bit_cast(u32, reduce_max(largest)) >> 23;
    const u32 raised = exponent < 20 ? 248 : exponent > 253 ? 15 : 268 - exponent;
    const f32 factor = __builtin_bit_cast(f32, raised << 23);
    if (lane == 0) shared.q_scales[row] = __builtin_bit_cast(f32, (254 - raised) << 23);
#pragma unroll
    for (u32 i = 0; i < kHeld; ++i) {
      const u32 piece = i * kWaveSize + lane;
      if (piece >= kPieces) continue;
#pragma unroll
      for (u32 j = 0; j < kElements; j += 4) {
        *reinterpret_cast<f16x4*>(&shared.q[row][piece * kElements + j]) = to_f16(four(i, j) * factor);
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
      const bool two = step + 1 < steps;
      const u32 column = two ? lane / 8 * 8 : lane / 8 % 2 * 8;
      const auto x = load_matrices<false>(at(lane % 8, step * 16 + column));
      words[step][0][0] = x[0], words[step][0][1] = x[1];
      if (two) words[step + 1][0][0] = x[2], words[step + 1][0][1] = x[3];
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

// --- Products -------------------------------------------------------------------------------------

// Scores of 16 keys, a quarter of the width: from the step `first` of 16 elements on.
template <typename Kv, u32 rows>
DEVICE void MultiplyKeys(f32 (&products)[rows / 8][4], const Shared<Kv, rows>& shared, u32 tile,
                         u32 first_key, u32 first, const u32 (&q)[kSteps][rows / 8][2]) {
  using Element = typename Cache<Kv>::Element;
  const u32 key = first_key + lane_id() % 16, half = lane_id() / 16;
  f32 odd[rows / 8][4] = {};  // two sums, so that one can go on while the other waits
#pragma unroll
  for (u32 step = 0; step < kSteps; step += 2) {
    const bool two = step + 1 < kSteps;
    u32x4 k0, k1;
    if constexpr (sizeof(Kv) == 2) {
      const u32 byte = (first + step) * 32 + half * 16;
      k0 = load_matrices<false>(shared.at(tile, key, byte));
      if (two) k1 = load_matrices<false>(shared.at(tile, key, byte + 32));
    } else {
      const u32 byte = (first + step + (two ? half : 0)) * 16;
      const auto x = load_matrices<false>(shared.at(tile, key, byte));
      k0 = {Expand(x[0]), Expand(x[1]), Expand(x[0] >> 16), Expand(x[1] >> 16)};
      k1 = {Expand(x[2]), Expand(x[3]), Expand(x[2] >> 16), Expand(x[3] >> 16)};
    }
#pragma unroll
    for (u32 eight = 0; eight < rows / 8; ++eight) {
      multiply_add<Element>(products[eight], k0, q[step][eight]);
      if (two) multiply_add<Element>(odd[eight], k1, q[step + 1][eight]);
    }
  }
#pragma unroll
  for (u32 eight = 0; eight < rows / 8; ++eight) {
    for (u32 i = 0; i < 4; ++i) products[eight][i] += odd[eight][i];
  }
}

// Adds 16 keys to the wave's columns, 16 at a time.
template <typename Kv, u32 rows>
DEVICE void MultiplyValues(f32 (&sums)[kColumns / 16][rows / 8][4], const Shared<Kv, rows>& shared,
                           u32 tile, u32 first_key, u32 wave, const u32 (&weights)[rows / 8][2]) {
  using Element = typename Cache<Kv>::Element;
  const u32 lane = lane_id();
  if constexpr (sizeof(Kv) == 2) {
    const u32 key = first_key + lane / 16 * 8 + lane % 8;
    const u32 byte = wave * kColumns * 2 + lane / 8 % 2 * 16;
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; ++i) {
      const auto v = load_matrices<true>(shared.at(tile, key, byte + i * 32));
#pragma unroll
      for (u32 eight = 0; eight < rows / 8; ++eight) {
        multiply_add<Element>(sums[i][eight], v, weights[eight]);
      }
    }
  } else {
    const u32 key = first_key + lane % 16, byte = wave * kColumns + lane / 16 * 16;
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; i += 2) {
      // Each word has two columns of two keys: even columns first, then odd ones.
      auto x = load_matrices<true>(shared.at(tile, key, byte + i * 16));
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

// --- Tiles ----------------------------------------------------------------------------------------

// Keys of a segment that are in a tile of the ring.
struct Tile {
  u32 slot;   // in the ring
  u32 first;  // key
  u32 keys;
  METHOD u32 steps() const { return (keys + kStepKeys - 1) / kStepKeys; }
};

// V of keys that do not exist has to be a number: 0, to the end of a step of which only some do.
template <typename Kv, u32 rows>
DEVICE void ClearKeys(Shared<Kv, rows>& shared, const Tile& tile) {
  constexpr u32 kRowWords = kWidth * sizeof(Kv) / 4;
  u32* const words = reinterpret_cast<u32*>(shared.tiles[tile.slot]);
  const u32 end = tile.steps() * kStepKeys * kRowWords;
  for (u32 i = tile.keys * kRowWords + thread_id(); i < end; i += kThreads) words[i] = 0;
  order_writes_before_copies();
}

// A wave's part of the scores: 16 keys and a quarter of the width.
template <typename Kv, u32 rows>
DEVICE void FindScores(Shared<Kv, rows>& shared, const Tile& tile,
                       const u32 (&q)[kSteps][rows / 8][2]) {
  const u32 lane = lane_id(), step = wave_id() % kTileSteps, quarter = wave_id() / kTileSteps;
  if (step >= tile.steps()) return;
  f32 products[rows / 8][4] = {};
  MultiplyKeys(products, shared, tile.slot, step * kStepKeys, quarter * kSteps, q);
#pragma unroll
  for (u32 eight = 0; eight < rows / 8; ++eight) {
    for (u32 i = 0; i < 4; ++i) {
      shared.scores[quarter][eight * 8 + lane % 4 * 2 + i % 2]
                   [step * kStepKeys + i / 2 * 8 + lane / 4] = products[eight][i];
    }
  }
}

// The weights of a row, which the wave has: of all keys before `seen`.
template <typename Kv, u32 rows>
DEVICE void FindWeights(Shared<Kv, rows>& shared, const Tile& tile, u32 seen, f32 scale,
                        Softmax<kWaveSize>& softmax) {
  using Element = typename Cache<Kv>::Element;
  using Part = vector<f32, kLaneKeys>;
  static_assert(kLaneKeys == 2);
  const u32 row = wave_id(), key = lane_id() * kLaneKeys;
  Part sum = {};
  for (u32 i = 0; i < kQuarters; ++i) {
    sum += *reinterpret_cast<const Part*>(&shared.scores[i][row][key]);
  }
  f32 scores[kLaneKeys];
  for (u32 i = 0; i < kLaneKeys; ++i) {
    scores[i] = tile.first + key + i < seen ? sum[i] * scale : -kInfinity;
  }
  const f32 decay = update(softmax, scores);
  if (lane_id() == 0) shared.decays[row] = decay;
  *reinterpret_cast<vector<Element, 2>*>(&shared.weights[row][key]) =
      vector<Element, 2>{static_cast<Element>(scores[0]), static_cast<Element>(scores[1])};
}

// Adds the values of a tile to the wave's columns.
template <typename Kv, u32 rows>
DEVICE void AddValues(const Shared<Kv, rows>& shared, const Tile& tile,
                      f32 (&sums)[kColumns / 16][rows / 8][4]) {
  u32 weights[kTileSteps][rows / 8][2];
  LoadRows<rows>(weights, [&](u32 row, u32 key) { return &shared.weights[row][key]; });
#pragma unroll
  for (u32 eight = 0; eight < rows / 8; ++eight) {
    const auto decays = *reinterpret_cast<const vector<f32, 2>*>(
        &shared.decays[eight * 8 + lane_id() % 4 * 2]);
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; ++i) {
      for (u32 j = 0; j < 4; ++j) sums[i][eight][j] *= decays[j % 2];
    }
  }
  // For a step without keys the first is taken once more, by weights of 0.
#pragma unroll
  for (u32 i = 0; i < kTileSteps; ++i) {
    MultiplyValues(sums, shared, tile.slot, i < tile.steps() ? i * kStepKeys : 0, wave_id(),
                   weights[i]);
  }
}

// --- Results --------------------------------------------------------------------------------------

// What a row of a tile is: which (query, head) pair of the sequence, and how many keys it sees.
struct Row {
  u32 number;
  bool exists;
  u32 seen;
};
DEVICE Row FindRow(const DecodeSm90Arguments& a, const Segment& s, u32 number) {
  const u32 heads = static_cast<u32>(a.heads);
  const bool exists = number < static_cast<u32>(a.q_len) * heads;
  const i32 sees = s.length - a.q_len + 1 + static_cast<i32>(number / heads);
  return {number, exists, exists && sees > 0 ? static_cast<u32>(sees) : 0};
}

// Of a row of a tile that nothing is left to merge of: what makes its sums normal, and its
// log-sum-exp.
template <typename Kv, u32 rows>
DEVICE void FinishRow(const DecodeSm90Arguments& a, const Segment& s, Shared<Kv, rows>& shared,
                      const Softmax<kWaveSize>& softmax) {
  const Row row = FindRow(a, s, s.tile * rows + wave_id());
  f32 lse;
  f32 factor = finish(softmax, lse);
  if (a.kv_scale != nullptr) factor *= *a.kv_scale;
  if (lane_id() != 0) return;
  shared.factors[wave_id()] = factor;
  if (row.exists) a.lse[static_cast<i64>(s.sequence) * a.q_len * a.heads + row.number] = lse;
}

// Its normalised results. They go through the place of q, so that whole lines are written.
template <typename Out, typename Kv, u32 rows>
DEVICE void StoreOut(const DecodeSm90Arguments& a, const Segment& s, Shared<Kv, rows>& shared,
                     const f32 (&sums)[kColumns / 16][rows / 8][4]) {
  constexpr u32 kPieces = kLatent * sizeof(Out) / 16;  // of a row
  const u32 lane = lane_id(), all = static_cast<u32>(a.q_len * a.heads);
  auto at = [&](u32 row, u32 column) { return reinterpret_cast<Out*>(shared.q[row]) + column; };
#pragma unroll
  for (u32 eight = 0; eight < rows / 8; ++eight) {
    const u32 row = eight * 8 + lane % 4 * 2;
    const auto factors = *reinterpret_cast<const vector<f32, 2>*>(&shared.factors[row]);
#pragma unroll
    for (u32 i = 0; i < kColumns / 16; ++i) {
#pragma unroll
      for (u32 k = 0; k < 4; ++k) {
        const u32 column = sm90_column(wave_id() * (kColumns / 16) + i, lane, k, sizeof(Kv) == 1);
        const f32 factor = factors[k % 2], sum = sums[i][eight][k];
        *at(row + k % 2, column) = static_cast<Out>(factor == 0.0f ? 0.0f : sum * factor);
      }
    }
  }
  ComputeSync();
  Out* const out = static_cast<Out*>(a.out) + static_cast<i64>(s.sequence) * all * kLatent;
  for (u32 i = thread_id(); i < rows * kPieces; i += kThreads) {
    const u32 row = i / kPieces, column = i % kPieces * (16 / sizeof(Out));
    if (s.tile * rows + row >= all) continue;
    *reinterpret_cast<u32x4*>(out + static_cast<i64>(s.tile * rows + row) * kLatent + column) =
        *reinterpret_cast<const u32x4*>(at(row, column));
  }
  ComputeSync();
}

// Partial results, as partial_sm90.h has them.
template <u32 rows>
DEVICE void StorePartial(const DecodeSm90Arguments& a, const Segment& s,
                         const f32 (&sums)[kColumns / 16][rows / 8][4],
                         const Softmax<kWaveSize>& softmax) {
  if (wave_id() < rows) {  // first, or its exchange of numbers would wait for the stores
    const f32 total = reduce_sum(softmax.total);
    if (lane_id() == 0) *sm90_weights(a.partial_lse, s.part, rows, wave_id()) = {softmax.top, total};
  }
#pragma unroll
  for (u32 i = 0; i < kColumns / 16; ++i) {
#pragma unroll
    for (u32 eight = 0; eight < rows / 8; ++eight) {
      const auto& x = sums[i][eight];
      const u32 piece = (wave_id() * (kColumns / 16) + i) * (rows / 8) + eight;
      *sm90_partial(a.partial, s.part, rows, piece, lane_id()) = f32x4{x[0], x[1], x[2], x[3]};
    }
  }
}

// --- The block ------------------------------------------------------------------------------------

template <typename Out, typename Q, typename Kv, u32 rows>
DEVICE void Compute(const DecodeSm90Arguments& a, Shared<Kv, rows>& shared) {
  const u32 wave = wave_id(), lane = lane_id();
  Ring<Cache<Kv>::kTiles> ring;
  for (Ring<kSegments> turn;; turn = turn.after(1)) {
    const Segment& s = TakeSegment(shared, turn);
    if (s.end == 0) return;
    const Keys keys = FindKeys(s);
    LoadQ<Q>(a, s, shared);
    ComputeSync();
    u32 q[kSteps][rows / 8][2];
    LoadQRows(q, shared, wave / kTileSteps * kSteps);
    const u32 sees = FindRow(a, s, s.tile * rows + wave).seen;  // in the wave's softmax
    const u32 seen = sees < keys.end ? sees : keys.end;
    f32 scale = a.scale * kLog2E;  // in the wave's softmax
    if (a.q_scale != nullptr) scale *= *a.q_scale;
    if (a.kv_scale != nullptr) scale *= *a.kv_scale;
    if constexpr (sizeof(Kv) == 1) scale *= shared.q_scales[wave % rows];
    Softmax<kWaveSize> softmax;
    f32 sums[kColumns / 16][rows / 8][4] = {};

    for (u32 first = keys.begin; first < keys.end; first += kKeys, ring = ring.after(1)) {
      const u32 left = keys.end - first;
      const Tile tile = {ring.at(), first, left < kKeys ? left : kKeys};
      wait(shared.full[tile.slot], ring.parity());
      FindScores(shared, tile, q);
      ComputeSync();
      if (tile.keys % kStepKeys != 0) ClearKeys(shared, tile);
      if (wave < rows) FindWeights(shared, tile, seen, scale, softmax);
      ComputeSync();
      AddValues(shared, tile, sums);
      wave_sync();
      if (lane == 0) arrive(shared.empty[tile.slot]);
    }

    if (s.whole) {
      if (wave < rows) FinishRow(a, s, shared, softmax);
      ComputeSync();
      StoreOut<Out>(a, s, shared, sums);
    } else {
      StorePartial<rows>(a, s, sums, softmax);
    }
    LeaveSegment(shared, turn);
  }
}

// A thread each for a few, since one takes its time.
template <typename Kv, u32 rows>
DEVICE void InitBarriers(Shared<Kv, rows>& shared) {
  if (lane_id() != 0) return;
  const u32 wave = wave_id();
  if (wave < Cache<Kv>::kTiles) {
    init(shared.full[wave], 1);
    init(shared.empty[wave], kWaves);
  } else if (const u32 segment = wave - Cache<Kv>::kTiles; segment < kSegments) {
    init(shared.dealt[segment], 1);
    init(shared.done[segment], kWaves + 1);
  } else {
    init(shared.table, kTableThreads);
  }
  publish_barriers();
}

extern __attribute__((shared)) __attribute__((aligned(1024))) u8 dynamic_shared[];

template <typename Out, typename Q, typename Kv, u32 rows>
DEVICE void Decode(const DecodeSm90Arguments& a) {
  using Block = Shared<Kv, rows>;
  static_assert(sizeof(Block) <= kSm90SharedBytes);
  Block& shared = *reinterpret_cast<Block*>(dynamic_shared);
  const u32 wave = wave_id();
  if (wave < kWaves) {
    if (wave <= Block::kTiles + kSegments) InitBarriers(shared);
    block_sync();
    take_registers<104>();
    Compute<Out, Q>(a, shared);
    return;
  }
  // Before the barriers are there, and the lengths.
  if (wave >= kTableWave) StartTable(a, shared);
  if (thread_id() == kThreads) prefetch_map(&a.kv_lines);
  Work work(a, count_tiles<rows>(a));
  const Table table(a, shared.pages);
  block_sync();
  start_next_kernel();
  leave_registers<64>();
  if (wave == kCopyWave) {
    CopyKeys(a, shared, table);
  } else if (wave == kDealWave) {
    DealSegments(shared, work);
  } else {
    FinishTable(shared);
  }
}

}  // namespace

#define DECODE(name, Out, Q, Kv, rows)                                    \
  KERNEL(kSm90Threads, 1) jax_mla_decode_sm90_##name##_##rows(            \
      const __attribute__((grid_constant)) DecodeSm90Arguments a) {       \
    Decode<Out, Q, Kv, rows>(a);                                          \
  }
#define DECODE_ROWS(name, Out, Q, Kv) DECODE(name, Out, Q, Kv, 8) DECODE(name, Out, Q, Kv, 16)
DECODE_ROWS(bf16, bf16, bf16, bf16)
DECODE_ROWS(f16, f16, f16, f16)
DECODE_ROWS(fp8, bf16, fp8, fp8)
DECODE_ROWS(bf16_fp8, bf16, bf16, fp8)

}  // namespace jax_mla
