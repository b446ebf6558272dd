// SPDX-License-Identifier: Apache-2.0
// Expands the page table of a batch into packed token indices.
#include "expand.h"

#include "device.h"
#include "scan.h"

namespace jax_mla {
namespace {

constexpr u32 kThreads = kExpandThreads;
static_assert(ExpandTilePages(1) == kExpandTile && ExpandTilePages(kExpandTile + 1) == 1);
static_assert(ExpandBlocks(1, 100 * kExpandTile + 1, 1) == 101, "a block to each tile");
static_assert(ExpandBlocks(4096, 1 << 20, 1) == 8 && ExpandBlocks(4096, 1, 16) == 1);

DEVICE u32 Length(const ExpandArguments& a, u32 sequence) {
  const i32 capacity = a.pages_per_seq * a.page_size;
  const i32 length = a.lengths[sequence];
  return length < 0 ? 0 : length > capacity ? capacity : length;
}

// Tokens of the sequences before this one, in every thread.
DEVICE u32 TokensBefore(const ExpandArguments& a, u32 sequence) {
  SHARED i32 sums[kThreads];
  u32 tokens = 0;
  for (u32 i = thread_id(); i < sequence; i += kThreads) tokens += Length(a, i);
  block_scan(tokens, sums);
  return sums[kThreads - 1];
}

}  // namespace

KERNEL(kExpandThreads, 4) jax_mla_expand(ExpandArguments a) {
  SHARED i32 page_begins[kExpandTile];  // first token of each page of the tile
  const u32 thread = thread_id();
  const u32 sequence = block_id_y();
  const u32 page_size = a.page_size;
  const u32 length = Length(a, sequence);
  const u32 pages = length / page_size + (length % page_size != 0);
  const u32 tile_pages = ExpandTilePages(a.page_size);
  const u32 first = block_id_x() * tile_pages;
  if (first >= pages && block_id_x() > 0) return;

  const u32 before = TokensBefore(a, sequence);
  if (block_id_x() == 0 && thread == 0) {
    a.kv_indptr[sequence] = before;
    if (sequence + 1 == static_cast<u32>(a.batch)) a.kv_indptr[sequence + 1] = before + length;
  }

  const i32* table = a.page_indices + static_cast<i64>(sequence) * a.pages_per_seq;
  for (u32 page = first; page < pages; page += a.blocks * tile_pages) {
    const u32 count = pages - page < tile_pages ? pages - page : tile_pages;
    block_sync();  // the pages of the last tile are still being read
    for (u32 i = thread; i < count; i += kThreads) {
      const i32 id = table[page + i];
      const i32 last = a.num_pages - 1;
      page_begins[i] = (id < 0 ? 0 : id > last ? last : id) * a.page_size;
    }
    block_sync();
    const u32 begin = page * page_size;
    const u32 left = length - begin;
    const u32 tokens = left < count * page_size ? left : count * page_size;
    i32* indices = a.kv_indices + before + begin;
    for (u32 i = thread; i < tokens; i += kThreads) {
      indices[i] = page_begins[i / page_size] + i % page_size;
    }
  }
}

}  // namespace jax_mla
