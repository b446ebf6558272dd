// SPDX-License-Identifier: Apache-2.0
// The argument block of AITER's decode kernels: slots of 16 bytes, a value at the start of each.
#pragma once

#include "device.h"

template <typename T>
struct alignas(16) Slot {
  T value;
};

struct Arguments {
  Slot<f32*> partial, partial_lse;
  Slot<const unsigned char*> q, pool;
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

// Of persistent mode, at `plan`: works indptr[x] to indptr[x + 1] are those of workgroup x.
struct Work {
  i32 sequence;
  i32 partial_row;       // negative: the result is that of the whole sequence
  i32 q_begin, q_end;    // rows of q, and of the whole result
  i32 kv_begin, kv_end;  // of tokens
  i32 kv_after;          // tokens that the sequence has after kv_end
  i32 unused;
};

struct Works {
  const i32* indptr;
  const Work* info;
};
