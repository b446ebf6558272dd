// SPDX-License-Identifier: Apache-2.0
// The argument block of AITER's decode kernels: every field at the start of a slot of 16 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jax_mla::aiter {

template <typename T>
struct Slot {
  T value;
  char padding[16 - sizeof(T)];
};

using Pointer = Slot<const void*>;
using Number = Slot<uint32_t>;

// The names are AITER's. "Page" is a token here: its kernels take pages of one.
struct DecodeArguments {
  Pointer R;                // float32 partial outputs
  Pointer LSE;              // and their log-sum-exp
  Pointer Q;
  Pointer KV;
  Pointer LTP;              // kv_indptr
  Pointer LTD;              // kv_indices
  Pointer LTL;              // kv_last_page_lens, which no kernel reads
  Slot<float> scalar;       // factor of the scores
  Number s_MQA;             // heads, or rows: heads times queries (row_argument of the table)
  Number s_kv_split;        // splits
  Number s_Q_Bs;            // bytes of Q from one sequence to the next
  Number s_Bs;              // bytes of a page
  Number s_log2_plen;       // log2 of a page's tokens
  Pointer QTP;              // qo_indptr
  Pointer STP;              // num_kv_splits_indptr; persistent: addresses of work_indptr, work_info
  Pointer RP;               // outputs of sequences in one piece: never asked for
  Pointer QSCALE;
  Pointer KVSCALE;
  Number out_16_nosplit;    // 1 in persistent mode; else whether R is bf16, which is never asked for
  Pointer LSEP;             // log-sum-exp of sequences in one piece: never asked for
  Pointer GKVTP;            // these three of context parallelism, which is not used
  Number s_cp_world_size;
  Number s_cp_rank;
};

#define JAX_MLA_AT(field, offset) \
  static_assert(offsetof(DecodeArguments, field) == (offset), #field " is in the wrong place")
JAX_MLA_AT(R, 0x000);
JAX_MLA_AT(LSE, 0x010);
JAX_MLA_AT(Q, 0x020);
JAX_MLA_AT(KV, 0x030);
JAX_MLA_AT(LTP, 0x040);
JAX_MLA_AT(LTD, 0x050);
JAX_MLA_AT(LTL, 0x060);
JAX_MLA_AT(scalar, 0x070);
JAX_MLA_AT(s_MQA, 0x080);
JAX_MLA_AT(s_kv_split, 0x090);
JAX_MLA_AT(s_Q_Bs, 0x0a0);
JAX_MLA_AT(s_Bs, 0x0b0);
JAX_MLA_AT(s_log2_plen, 0x0c0);
JAX_MLA_AT(QTP, 0x0d0);
JAX_MLA_AT(STP, 0x0e0);
JAX_MLA_AT(RP, 0x0f0);
JAX_MLA_AT(QSCALE, 0x100);
JAX_MLA_AT(KVSCALE, 0x110);
JAX_MLA_AT(out_16_nosplit, 0x120);
JAX_MLA_AT(LSEP, 0x130);
JAX_MLA_AT(GKVTP, 0x140);
JAX_MLA_AT(s_cp_world_size, 0x150);
JAX_MLA_AT(s_cp_rank, 0x160);
#undef JAX_MLA_AT
static_assert(sizeof(DecodeArguments) == 368);

}  // namespace jax_mla::aiter
