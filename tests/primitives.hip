// SPDX-License-Identifier: Apache-2.0
// A kernel for each primitive of csrc/kernels/device.h, for test_primitives.py.
#include "../csrc/kernels/device.h"

constexpr u32 kThreads = 128;  // of a block: two waves, or four warps

DEVICE u32 global_id() { return block_id_x() * kThreads + thread_id(); }

// Of a grid of 3 x 2 x 2 blocks.
KERNEL(kThreads, 1) ids(u32* lanes, u32* waves, u32* blocks, u32* wave_size) {
  const u32 block = block_id_x() + 3 * (block_id_y() + 2 * block_id_z());
  const u32 at = block * kThreads + thread_id();
  lanes[at] = lane_id();
  waves[at] = wave_id();
  blocks[at] = block;
  *wave_size = kWaveSize;
}

KERNEL(kThreads, 1) mirror(const u32* x, u32* y) {
  SHARED u32 shared[kThreads];
  shared[thread_id()] = x[global_id()];
  block_sync();
  y[global_id()] = shared[kThreads - 1 - thread_id()];
}

// --- Arithmetic ---

KERNEL(kThreads, 1) exponentials(const f32* x, f32* base_2, f32* natural) {
  base_2[global_id()] = exp2(x[global_id()]);
  natural[global_id()] = exp(x[global_id()]);
}
KERNEL(kThreads, 1) logarithms(const f32* x, f32* base_2, f32* natural) {
  base_2[global_id()] = log2(x[global_id()]);
  natural[global_id()] = log(x[global_id()]);
}
KERNEL(kThreads, 1) extremes(const f32* x, const f32* y, f32* largest, f32* smallest) {
  const u32 i = global_id();
  largest[i] = max(x[i], y[i]);
  smallest[i] = min(x[i], y[i]);
}

#define FROM(type)                                                    \
  KERNEL(kThreads, 1) from_##type(const type##x4* x, f32x4* values) { \
    values[global_id()] = to_f32(x[global_id()]);                     \
  }
#define INTO(type)                                                    \
  KERNEL(kThreads, 1) into_##type(const f32x4* values, type##x4* x) { \
    x[global_id()] = to_##type(values[global_id()]);                  \
  }
FROM(bf16)
FROM(f16)
FROM(fp8)
INTO(bf16)
INTO(f16)
INTO(fp8)

// --- Lanes ---

KERNEL(kThreads, 1) shuffles(const u32* x, const u32* lanes, u32* y) {
  y[thread_id()] = shuffle(x[thread_id()], lanes[thread_id()]);
}

KERNEL(kThreads, 1) firsts(const u32* x, u32* y) { y[thread_id()] = first_of_8(x[thread_id()]); }

// y[mask] for every mask.
template <u32 mask>
DEVICE void xor_from(u32 x, u32* y) {
  y[mask * kThreads + thread_id()] = shuffle_xor<mask>(x);
  if constexpr (mask + 1 < kWaveSize) xor_from<mask + 1>(x, y);
}
KERNEL(kThreads, 1) shuffles_xor(const u32* x, u32* y) { xor_from<0>(x[thread_id()], y); }

// Of 2, 4, .. neighbours.
template <u32 lanes>
DEVICE void reduce_from(f32 x, f32* largest, f32* sums) {
  largest[thread_id()] = reduce_max<lanes>(x);
  sums[thread_id()] = reduce_sum<lanes>(x);
  if constexpr (lanes < kWaveSize) {
    reduce_from<2 * lanes>(x, largest + kThreads, sums + kThreads);
  }
}
KERNEL(kThreads, 1) reductions(const f32* x, f32* largest, f32* sums) {
  reduce_from<2>(x[thread_id()], largest, sums);
}

// --- Matrix instructions: a block of one wave has tiles of its own ---

template <typename Element, u32 depth>
DEVICE void multiply(const Element* a, const Element* b, const f32* c, f32* d) {
  using Part = Operand<Element, depth>;
  const u32 tile = block_id_x();
  Part x, y;
  for (u32 i = 0; i < sizeof(Part) / sizeof(Element); ++i) {
    const u32 at = (tile * 16 + operand_row(i)) * depth + operand_column<depth>(i);
    x[i] = a[at];
    y[i] = b[at];
  }
  Result z;
  for (u32 i = 0; i < sizeof(Result) / sizeof(f32); ++i) {
    z[i] = c[(tile * 16 + result_row(i)) * 16 + result_column(i)];
  }
  z = multiply_add(x, y, z);
  for (u32 i = 0; i < sizeof(Result) / sizeof(f32); ++i) {
    d[(tile * 16 + result_row(i)) * 16 + result_column(i)] = z[i];
  }
}

#define MULTIPLY(Element, depth)                                                                  \
  KERNEL(kWaveSize, 1)                                                                            \
  multiply_##Element##_##depth(const Element* a, const Element* b, const f32* c, f32* d) {        \
    multiply<Element, depth>(a, b, c, d);                                                         \
  }
MULTIPLY(bf16, 16)
MULTIPLY(f16, 16)
#ifdef __AMDGCN__
MULTIPLY(fp8, 32)
#endif
#ifdef __gfx950__
MULTIPLY(bf16, 32)
MULTIPLY(f16, 32)
#endif

// A tile [16, depth] from shared memory, and the transpose of one [depth, 128] in 8 operands: rows
// lie apart, and the odd ones have pieces of 16 bytes in pairs the other way round.
constexpr u32 kTransposed = 8;
template <bool transposed, typename Element, u32 depth>
DEVICE void load(const Element* tile, Element* out) {
  constexpr u32 kPiece = 16 / sizeof(Element), kRows = transposed ? depth : 16;
  constexpr u32 kColumns = transposed ? 16 * kTransposed : depth, kStride = kColumns + kPiece;
  SHARED __attribute__((aligned(16))) Element shared[kRows * kStride];
  const auto at = [&](u32 row, u32 column) {
    return shared + row * kStride + (column ^ row % 2 * kPiece);
  };
  for (u32 i = thread_id(); i < kRows * kColumns; i += kWaveSize) {
    *at(i / kColumns, i % kColumns) = tile[i];
  }
  block_sync();
  using Part = Operand<Element, depth>;
  if constexpr (transposed) {
    Part x[kTransposed];
    load_transposed(at, x);
    for (u32 n = 0; n < kTransposed; ++n) {
      for (u32 i = 0; i < sizeof(Part) / sizeof(Element); ++i) {
        const u32 row = transposed_column(n, operand_row(i));
        out[row * depth + operand_column<depth>(i)] = x[n][i];
      }
    }
  } else {
    const auto x = load_operand<Element, depth>(at);
    for (u32 i = 0; i < sizeof(Part) / sizeof(Element); ++i) {
      out[operand_row(i) * depth + operand_column<depth>(i)] = x[i];
    }
  }
}

#define LOAD(name, transposed, Element, depth)                                           \
  KERNEL(kWaveSize, 1) name##_##Element##_##depth(const Element* tile, Element* out) {    \
    load<transposed, Element, depth>(tile, out);                                         \
  }
LOAD(load, false, bf16, 16)
LOAD(load, false, f16, 16)
LOAD(load_transposed, true, bf16, 16)
LOAD(load_transposed, true, f16, 16)
#ifdef __AMDGCN__
LOAD(load, false, fp8, 32)
#endif
#ifdef __gfx950__
LOAD(load, false, bf16, 32)
LOAD(load, false, f16, 32)
LOAD(load_transposed, true, bf16, 32)
LOAD(load_transposed, true, f16, 32)
#endif

// --- Asynchronous copies ---

using Chunk = vector<u32, kCopyBytes / 4>;

// Each thread's chunk of memory, none where it is negative, into shared memory that holds -1,
// and all of that out: with a chunk before it and one after it.
KERNEL(kThreads, 1) copy_gather(const Chunk* memory, const i32* chunks, Chunk* out) {
  SHARED Chunk shared[kThreads + 2];
  for (u32 i = thread_id(); i < kThreads + 2; i += kThreads) shared[i] = ~Chunk{};
  block_sync();
  const i32 chunk = chunks[thread_id()];
  if (chunk >= 0) copy_async(shared + 1 + wave_id() * kWaveSize, memory + chunk);
  copy_commit();
  copy_wait<0, 1>();
  block_sync();
  for (u32 i = thread_id(); i < kThreads + 2; i += kThreads) out[i] = shared[i];
}

// Tiles of two chunks a thread through a ring in shared memory, two tiles ahead; each thread
// writes what another wave's has copied.
constexpr u32 kCopies = 2;
DEVICE void start_tile(const Chunk* tiles, Chunk (*ring)[kCopies][kThreads], u32 tile) {
  for (u32 copy = 0; copy < kCopies; ++copy) {
    Chunk* to = ring[tile % 3][copy] + wave_id() * kWaveSize;
    copy_async(to, tiles + (tile * kCopies + copy) * kThreads + thread_id());
  }
  copy_commit();
}
KERNEL(kThreads, 1) copy_pipeline(const Chunk* tiles, Chunk* out, u32 count) {
  SHARED Chunk ring[3][kCopies][kThreads];
  for (u32 tile = 0; tile < 2 && tile < count; ++tile) start_tile(tiles, ring, tile);
  for (u32 tile = 0; tile < count; ++tile) {
    if (tile + 1 < count) {
      copy_wait<1, kCopies>();
    } else {
      copy_wait<0, kCopies>();
    }
    block_sync();  // this tile is there, and nobody reads the one that the next takes the place of
    if (tile + 2 < count) start_tile(tiles, ring, tile + 2);
    for (u32 copy = 0; copy < kCopies; ++copy) {
      out[(tile * kCopies + copy) * kThreads + thread_id()] =
          ring[tile % 3][copy][kThreads - 1 - thread_id()];
    }
  }
}
