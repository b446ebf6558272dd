// SPDX-License-Identifier: Apache-2.0
// Decode with float32 multiply-adds, for every dtype. Keys are widened in registers, float8 ones,
// which take ten instructions, in a block that stays in the cache. Each row is its own whatever
// other rows there are.
#pragma once

#include "cpu/common.h"
#include "cpu/kernel.h"
#include "cpu/lanes.h"

namespace jax_mla::cpu {
namespace {

namespace fma {

constexpr int kBlock = 32;  // tokens
constexpr int kQuad = 4;    // rows that share a loaded key
#if defined(__AVX512F__)
constexpr int kTokenTile = 4, kVectors = 4;  // 32 registers
#else
constexpr int kTokenTile = 2, kVectors = 2;  // 16 registers
#endif

struct WidenQueries {
  const Part& part;
  float* queries;

  template <Dtype dtype>
  void Run() const {
    const Floats factor = Splat(part.factor);
    for (int64_t i = 0; i < part.rows * part.width; i += kLanes) {
      Store(queries + i, Widened<dtype>(part.q, i) * factor);
    }
  }
};

// float8 rows to float32 ones at `widened`, of which `keys` are the addresses afterwards.
struct WidenKeys {
  const Part& part;
  int tokens;
  const char* const* ahead;
  float* widened;
  const char** keys;

  template <Dtype dtype>
  void Run() const {
    for (int t = 0; t < tokens; ++t) {
      Prefetch(ahead[t], part.width * ItemSize(dtype));
      float* row = widened + t * part.width;
      for (int64_t i = 0; i < part.width; i += kLanes) Store(row + i, Widened<dtype>(keys[t], i));
      keys[t] = reinterpret_cast<const char*>(row);
    }
  }
};

// q . k of kQuad or fewer rows; `ahead`, if any, is fetched meanwhile. Scores of tokens up to the
// next multiple of kTokenTile are written, and mean nothing.
template <int rows, Dtype dtype>
void Scores(const float* queries, const char* const* keys, const char* const* ahead, int64_t width,
            int tokens, float (*scores)[kBlock]) {
  constexpr int kChunk = 32;  // columns, whole lines of every dtype that is read where it lies
  for (int token = 0; token < tokens; token += kTokenTile) {
    Floats sums[rows][kTokenTile];
    for (auto& row : sums) {
      for (Floats& sum : row) sum = Splat(0.0f);
    }
    for (int64_t column = 0; column < width; column += kChunk) {
      for (int t = 0; ahead != nullptr && t < kTokenTile; ++t) {
        Prefetch(ahead[token + t] + column * ItemSize(dtype), kChunk * ItemSize(dtype));
      }
#pragma GCC unroll 4
      for (int64_t i = column; i < column + kChunk; i += kLanes) {
        Floats k[kTokenTile];
#pragma GCC unroll 4
        for (int t = 0; t < kTokenTile; ++t) k[t] = Widened<dtype>(keys[token + t], i);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
          const Floats q = Load(queries + r * width + i);
#pragma GCC unroll 4
          for (int t = 0; t < kTokenTile; ++t) sums[r][t] = MultiplyAdd(q, k[t], sums[r][t]);
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int t = 0; t < kTokenTile; ++t) scores[r][token + t] = Sum(sums[r][t]);
    }
  }
}

// sums = decay * sums + weights . values, of kQuad or fewer rows.
template <int rows, Dtype dtype>
void Values(const float (*weights)[kBlock], const float* decay, const char* const* keys,
            int tokens, int64_t latent_dim, float* sums) {
  const int64_t pitch = Pitch(latent_dim);
  for (int64_t column = 0; column < latent_dim; column += kVectors * kLanes) {
    Floats x[rows][kVectors];
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < kVectors; ++i) {
        x[r][i] = Splat(decay[r]) * Load(sums + r * pitch + column + i * kLanes);
      }
    }
    for (int token = 0; token < tokens; ++token) {
      Floats v[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) v[i] = Widened<dtype>(keys[token], column + i * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const Floats weight = Splat(weights[r][token]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) x[r][i] = MultiplyAdd(weight, v[i], x[r][i]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < kVectors; ++i) Store(sums + r * pitch + column + i * kLanes, x[r][i]);
    }
  }
}

// Scores to weights, in place; what the sums so far are to be multiplied with.
float Softmax(float* scores, int64_t seen, float* top, float* total) {
  for (int64_t token = seen < 0 ? 0 : seen; token < kBlock; ++token) {
    scores[token] = -__builtin_inff();
  }
  Floats largest = Splat(*top);
  for (int i = 0; i < kBlock; i += kLanes) largest = Max(largest, Load(scores + i));
  const float new_top = Largest(largest), decay = Exp2(*top - new_top);
  Floats sum = Splat(0.0f);
  for (int i = 0; i < kBlock; i += kLanes) {
    const Floats weight = Exp2(Load(scores + i) - Splat(new_top));
    Store(scores + i, weight);
    sum = sum + weight;
  }
  *top = new_top;
  *total = *total * decay + Sum(sum);
  return decay;
}

// A block of keys, for all rows; `top` and `total` are what the rows know of the ones before.
struct Update {
  const Part& part;
  const float* queries;
  int64_t first_token;
  int tokens;
  const char* const* keys;
  const char* const* ahead;  // to be fetched, if any
  float *top, *total;

  template <Dtype dtype>
  void Run() const {
    if constexpr (ItemSize(dtype) > 1) {  // float8 has been widened
      for (int r = 0; r < part.rows; r += kQuad) {
        switch (part.rows - r) {
          case 1: Quad<1, dtype>(r); break;
          case 2: Quad<2, dtype>(r); break;
          case 3: Quad<3, dtype>(r); break;
          default: Quad<4, dtype>(r); break;
        }
      }
    }
  }

  template <int rows, Dtype dtype>
  void Quad(int first_row) const {
    alignas(64) float scores[kQuad][kBlock];
    float decay[kQuad];
    Scores<rows, dtype>(queries + first_row * part.width, keys, first_row == 0 ? ahead : nullptr,
                        part.width, tokens, scores);
    for (int r = 0; r < rows; ++r) {
      const int row = first_row + r;
      const int64_t visible = part.visible[row] - first_token;
      const int64_t seen = visible < tokens ? visible : tokens;
      decay[r] = Softmax(scores[r], seen, top + row, total + row);
    }
    Values<rows, dtype>(scores, decay, keys, tokens, part.latent_dim,
                        part.partial + first_row * Pitch(part.latent_dim));
  }
};

void Decode(const Part& part) {
  const FlushSubnormals flush;
  const int64_t pitch = Pitch(part.latent_dim);
  const bool float8 = ItemSize(part.kv_dtype) == 1;
  float* queries = static_cast<float*>(part.scratch);
  float* widened = queries + kRowTile * part.width;
  float top[kRowTile], total[kRowTile];
  WithDtype(part.q_dtype, WidenQueries{part, queries});
  for (int r = 0; r < part.rows; ++r) {
    top[r] = kNoScore;
    total[r] = 0.0f;
    __builtin_memset(part.partial + r * pitch, 0, part.latent_dim * sizeof(float));
  }
  TokenRows rows(part, part.begin);
  RowsAhead rows_ahead(part, part.begin + kBlock);
  const char *keys[kBlock], *ahead[kBlock];
  for (int64_t token = part.begin; token < part.end; token += kBlock) {
    int tokens = 0;
    while (tokens < kBlock && rows.left() > 0) keys[tokens++] = rows.Next();
    rows_ahead.Take(kBlock, keys[0], ahead);
    if (float8) WithDtype(part.kv_dtype, WidenKeys{part, tokens, ahead, widened, keys});
    for (int t = tokens; t < kBlock; ++t) keys[t] = keys[tokens - 1];
    const char* const* not_fetched = float8 ? nullptr : ahead;
    WithDtype(float8 ? Dtype::kFloat32 : part.kv_dtype,
              Update{part, queries, token, tokens, keys, not_fetched, top, total});
  }
  for (int r = 0; r < part.rows; ++r) {
    float* statistics = part.partial + r * pitch + part.latent_dim;
    statistics[kTop] = top[r];
    statistics[kTotal] = statistics[kNormalizer] = total[r];
  }
}

}  // namespace fma

}  // namespace
}  // namespace jax_mla::cpu
