// SPDX-License-Identifier: Apache-2.0
// Arguments of the plan kernel, the same on the host and on the device.
#pragma once

namespace jax_mla {

// A run of keys of one sequence, and of one group of heads, that one unit works on.
struct alignas(16) Work {
  int place;        // in q, which lies [groups, batch, q_len]: group * batch + sequence
  int partial_row;  // first row of its partial results: its number times q_len
  int q_begin;      // rows of q
  int q_end;
  int kv_begin;     // positions in kv_indices
  int kv_end;
  int keys_after;   // keys of the sequence after those
  int unused;       // 0
};

// The works of a batch for `units` workgroups, jax_mla/persistent.py's make_plan bit for bit.
struct PlanArguments {
  const int* kv_indptr;  // [batch + 1], from the expand kernel: 0 first, and never falling
  int* work_indptr;      // [units + 1], works of each unit
  Work* work_info;       // [batch * groups + units - 1], 0 past the last work; 16-byte aligned
  int* reduce_indptr;    // [batch * groups + 1], works of each group of each sequence
  int batch;
  int groups;            // of heads, each of which goes over the keys on its own; at least 1
  int q_len;             // query tokens per sequence, all in one work
  int block;             // tokens, at least q_len; cuts fall on multiples of it
  int units;             // at least 1
};

// A single block of threads.
constexpr int kPlanThreads = 256;

}  // namespace jax_mla
