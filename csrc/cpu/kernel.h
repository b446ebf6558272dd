// SPDX-License-Identifier: Apache-2.0
// Decode on the CPU as its instruction sets offer it. Each is a source file that is compiled with
// flags of its own, and that no inline function of the standard library may get into: the linker
// could keep that copy for everyone.
#pragma once

#include <stdint.h>

namespace jax_mla::cpu {

enum class Dtype { kFloat32, kBfloat16, kFloat16, kFloat8E4M3FN, kFloat8E4M3FNUZ };

constexpr int kRowTile = 16;      // rows, (query token, head) pairs, of a part
constexpr int kBlockTokens = 64;  // no part but a sequence's last ends within such a block
constexpr int kColumnTile = 64;   // latent_dim is a multiple of this, width of the half

// Floats from one row of partial results to the next: the sums over the values, then the row's
// Statistic, then what keeps rows aligned.
static constexpr int64_t Pitch(int64_t latent_dim) { return latent_dim + 16; }

enum Statistic {
  kTop,         // largest score
  kTotal,       // sum of the weights, of which the log-sum-exp is made
  kNormalizer,  // the same of the weights as they were multiplied with the values, maybe rounded
};

// Bytes of scratch that a part needs: its queries and a block of keys, widened.
static constexpr int64_t ScratchBytes(int64_t width) {
  return (kRowTile + kBlockTokens) * width * 4;
}

// The keys begin .. end - 1 of one sequence against at most kRowTile rows.
struct Part {
  const void* q;  // [rows, width]
  const void* kv_pages;
  const int32_t* page_indices;  // of the sequence; clamped here
  Dtype q_dtype;
  Dtype kv_dtype;
  int64_t pages;
  int64_t page_size;
  int64_t width;
  int64_t latent_dim;
  int64_t begin;
  int64_t end;
  int rows;
  int64_t visible[kRowTile];  // row i sees the keys before visible[i]
  float factor;               // from q . k to the exponent of 2
  float* partial;             // [rows, Pitch(latent_dim)], what comes out
  void* scratch;              // aligned to 64 bytes
  const Part* next;           // whose first keys are fetched towards the end of this one, or none
};

// The parts of one row, to its output. The order is that of the parts, whoever computed them.
struct Merge {
  const float* partial;  // of the first part
  int64_t part_stride;   // floats from part to part
  int64_t parts;
  int64_t latent_dim;
  float value_scale;
  Dtype out_dtype;
  void* out;  // [latent_dim]
  float* lse;
};

struct Kernel {
  void (*decode)(const Part&);
  void (*merge)(const Merge&);
};

extern const Kernel kAvx2;
extern const Kernel kAvx512;
extern const Kernel kAvx512Bf16;

}  // namespace jax_mla::cpu
