// SPDX-License-Identifier: Apache-2.0
// Decode with float32 multiply-adds, for every dtype: a block of keys is widened to float32, which
// stays in the cache, and each row is its own whatever other rows there are.
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

struct WidenBlock {
  const Part& part;
  TokenRows& rows;
  TokenRows& ahead;
  int tokens;
  float* keys;

  template <Dtype dtype>
  void Run() const {
    const int64_t row_bytes = part.width * ItemSize(dtype);
    for (int token = 0; token < tokens; ++token) {
      const char* row = rows.Next();
      if (ahead.left() > 0) Prefetch(ahead.Next(), row_bytes);
      for (int64_t i = 0; i < part.width; i += kLanes) {
        Store(keys + token * part.width + i, Widened<dtype>(row, i));
      }
    }
  }
};

// q . k of kQuad or fewer rows. Scores of tokens up to the next multiple of kTokenTile are written,
// and mean nothing.
template <int rows>
void Scores(const float* queries, const float* keys, int64_t width, int tokens,
            float (*scores)[kBlock]) {
  for (int token = 0; token < tokens; token += kTokenTile) {
    Floats sums[rows][kTokenTile];
    for (auto& row : sums) {
      for (Floats& sum : row) sum = Splat(0.0f);
    }
    const float* key = keys + token * width;
    for (int64_t i = 0; i < width; i += kLanes) {
      Floats k[kTokenTile];
      for (int t = 0; t < kTokenTile; ++t) k[t] = Load(key + t * width + i);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const Floats q = Load(queries + r * width + i);
#pragma GCC unroll 4
        for (int t = 0; t < kTokenTile; ++t) sums[r][t] = MultiplyAdd(q, k[t], sums[r][t]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int t = 0; t < kTokenTile; ++t) scores[r][token + t] = Sum(sums[r][t]);
    }
  }
}

// sums = decay * sums + weights . values, of kQuad or fewer rows.
template <int rows>
void Values(const float (*weights)[kBlock], const float* decay, const float* keys, int64_t width,
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
      for (int i = 0; i < kVectors; ++i) v[i] = Load(keys + token * width + column + i * kLanes);
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

template <int rows>
void Update(const Part& part, int first_row, int64_t first_token, int tokens, const float* queries,
            const float* keys, float* top, float* total) {
  alignas(64) float scores[kQuad][kBlock];
  float decay[kQuad];
  const int64_t end = first_token + tokens;
  Scores<rows>(queries + first_row * part.width, keys, part.width, tokens, scores);
  for (int r = 0; r < rows; ++r) {
    const int64_t visible = part.visible[first_row + r];
    const int64_t seen = (visible < end ? visible : end) - first_token;
    decay[r] = Softmax(scores[r], seen, top + first_row + r, total + first_row + r);
  }
  Values<rows>(scores, decay, keys, part.width, tokens, part.latent_dim,
               part.partial + first_row * Pitch(part.latent_dim));
}

void Decode(const Part& part) {
  const FlushSubnormals flush;
  const int64_t pitch = Pitch(part.latent_dim);
  float* queries = static_cast<float*>(part.scratch);
  float* keys = queries + kRowTile * part.width;
  float top[kRowTile], total[kRowTile];
  WithDtype(part.q_dtype, WidenQueries{part, queries});
  for (int r = 0; r < part.rows; ++r) {
    top[r] = kNoScore;
    total[r] = 0.0f;
    __builtin_memset(part.partial + r * pitch, 0, part.latent_dim * sizeof(float));
  }
  TokenRows rows(part, part.begin), ahead(part, part.begin + kBlock);
  for (int64_t token = part.begin; token < part.end; token += kBlock) {
    const int tokens = static_cast<int>(part.end - token < kBlock ? part.end - token : kBlock);
    WithDtype(part.kv_dtype, WidenBlock{part, rows, ahead, tokens, keys});
    for (int r = 0; r < part.rows; r += kQuad) {
      switch (part.rows - r) {
        case 1: Update<1>(part, r, token, tokens, queries, keys, top, total); break;
        case 2: Update<2>(part, r, token, tokens, queries, keys, top, total); break;
        case 3: Update<3>(part, r, token, tokens, queries, keys, top, total); break;
        default: Update<4>(part, r, token, tokens, queries, keys, top, total); break;
      }
    }
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
