// SPDX-License-Identifier: Apache-2.0
// Arguments of the expand kernel, the same on the host and on the device.
#pragma once

namespace jax_mla {

// A paged table becomes packed token indices (CSR), what AITER's kernels take: the token at `slot`
// of page `page` is row page * page_size + slot of the pool. Lengths are clamped to
// 0 .. pages_per_seq * page_size and page ids to 0 .. num_pages - 1. Entries of page_indices beyond
// a sequence's length are not read. Entries of kv_indices from kv_indptr[batch] on are not written:
// nothing may read them, and AITER's kernels do not: they stop at the end of a sequence.
struct ExpandArguments {
  const int* lengths;       // [batch], tokens of each sequence
  const int* page_indices;  // [batch, pages_per_seq]
  int* kv_indptr;           // [batch + 1], where each sequence begins in kv_indices
  int* kv_indices;          // [batch * pages_per_seq * page_size], below 2**31 entries
  int batch;                // at least 1
  int pages_per_seq;
  int page_size;            // any; num_pages * page_size is below 2**31
  int num_pages;
  int blocks;               // of threads to a sequence; see ExpandBlocks
};

// Grid (blocks, batch). A block expands whole pages, about kExpandTile tokens at a time.
constexpr int kExpandThreads = 256;
constexpr int kExpandTile = 1024;

// Pages that a block expands at a time.
constexpr int ExpandTilePages(int page_size) {
  return page_size < kExpandTile ? kExpandTile / page_size : 1;
}

// Blocks to a sequence: one for each tile of a full sequence, but not many more than fill the GPU;
// some even where sequences alone would fill it, since one may be much longer than the others.
constexpr int ExpandBlocks(int batch, int pages_per_seq, int page_size) {
  const int tile = ExpandTilePages(page_size);
  const int tiles = pages_per_seq / tile + (pages_per_seq % tile != 0);
  const int enough = 8 + 2048 / batch;
  return tiles < 1 ? 1 : tiles < enough ? tiles : enough;
}

}  // namespace jax_mla
