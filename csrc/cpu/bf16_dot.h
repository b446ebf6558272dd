// SPDX-License-Identifier: Apache-2.0
// Decode with AVX-512's dot products of bfloat16 pairs. Keys in bfloat16 are read where they lie,
// float8 ones are widened to bfloat16, which holds each of them; weights are rounded to bfloat16,
// and the output is normalized by the sum of the rounded ones.
//
// A vector of queries holds the rows of the part side by side: 16 rows with a pair of columns each,
// or, where there are no more, 4 rows with 4 pairs each.
#pragma once

#include "cpu/common.h"
#include "cpu/kernel.h"
#include "cpu/lanes.h"

namespace jax_mla::cpu {
namespace {

namespace bf16_dot {

using Pairs = __m512bh;

constexpr int kBlock = kBlockTokens;
constexpr int kTokenTile = 8;
constexpr int kQuad = 4;

inline Floats Dot(Floats sum, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sum, a, b); }

// --- Queries -------------------------------------------------------------------------------------

// Widens to bfloat16. Exact, as float8 and bfloat16 are all there is.
struct ToBfloat16 {
  const void* from;
  int64_t count;
  char* to;

  template <Dtype dtype>
  void Run() const {
    for (int64_t i = 0; i < count; i += kLanes) {
      Store16(to + 2 * i, ShiftRight(Bits(Widened<dtype>(from, i)), 16));
    }
  }
};

// Lays rows of bfloat16 out as vectors: `pairs` of row 0, of row 1 and so on, then the next pairs.
void PackQueries(const char* rows, int num_rows, int64_t width, int pairs, char* packed) {
  const int tile = 16 / pairs;
  const int64_t row_bytes = 2 * width, chunk = 4 * pairs;
  __builtin_memset(packed, 0, tile * row_bytes);
  for (int r = 0; r < num_rows; ++r) {
    for (int64_t i = 0; i < row_bytes; i += chunk) {
      __builtin_memcpy(packed + i * tile + r * chunk, rows + r * row_bytes + i, chunk);
    }
  }
}

// --- Keys in float8 ------------------------------------------------------------------------------

// bfloat16 of each code without its sign, and what the negative zero is: NaN in e4m3fnuz.
class Float8Table {
 public:
  explicit Float8Table(Dtype dtype) {
    uint8_t codes[128];
    for (int i = 0; i < 128; ++i) codes[i] = static_cast<uint8_t>(i);
    WithDtype(dtype, ToBfloat16{codes, 128, reinterpret_cast<char*>(quarters_)});
    if (dtype == Dtype::kFloat8E4M3FNUZ) negative_zero_ = _mm512_set1_epi16(0x7fc0);
  }

  // 32 numbers.
  Ints Widened(const char* from) const {
    const Ints code = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)from));
    const Ints low = _mm512_permutex2var_epi16(quarters_[0], code, quarters_[1]);
    const Ints high = _mm512_permutex2var_epi16(quarters_[2], code, quarters_[3]);
    const __mmask32 is_high = _mm512_test_epi16_mask(code, _mm512_set1_epi16(0x40));
    const Ints sign = _mm512_slli_epi16(_mm512_srli_epi16(code, 7), 15);
    const Ints x = Or(_mm512_mask_blend_epi16(is_high, low, high), sign);
    const __mmask32 is_negative_zero = _mm512_cmpeq_epi16_mask(code, _mm512_set1_epi16(0x80));
    return _mm512_mask_mov_epi16(x, is_negative_zero, negative_zero_);
  }

 private:
  Ints quarters_[4];
  Ints negative_zero_ = _mm512_set1_epi16(-0x8000);
};

// --- Scores --------------------------------------------------------------------------------------

// kTokenTile tokens against 16 rows: a vector of rows for each token. `ahead` is fetched meanwhile.
inline void Scores16(const char* const* keys, const char* const* ahead, const char* queries,
                     int64_t row_bytes, Floats* scores) {
  Floats sums[kTokenTile];
  for (Floats& sum : sums) sum = Splat(0.0f);
  for (int64_t line = 0; line < row_bytes; line += 64) {
    for (int t = 0; t < kTokenTile; ++t) _mm_prefetch(ahead[t] + line, _MM_HINT_T1);
#pragma GCC unroll 16
    for (int64_t i = line; i < line + 64; i += 4) {
      const Pairs q = (Pairs)_mm512_load_si512(queries + 16 * i);
#pragma GCC unroll 8
      for (int t = 0; t < kTokenTile; ++t) {
        int pair;
        __builtin_memcpy(&pair, keys[t] + i, 4);
        sums[t] = Dot(sums[t], q, (Pairs)_mm512_set1_epi32(pair));
      }
    }
  }
  for (int t = 0; t < kTokenTile; ++t) scores[t] = sums[t];
}

// kTokenTile tokens against 4 rows: 4 vectors' sums become one of [4 rows][4 tokens].
inline void Scores4(const char* const* keys, const char* const* ahead, const char* queries,
                    int64_t row_bytes, Floats* scores) {
  Floats sums[kTokenTile];
  for (Floats& sum : sums) sum = Splat(0.0f);
  for (int64_t line = 0; line < row_bytes; line += 64) {
    for (int t = 0; t < kTokenTile; ++t) _mm_prefetch(ahead[t] + line, _MM_HINT_T1);
#pragma GCC unroll 4
    for (int64_t i = line; i < line + 64; i += 16) {
      const Pairs q = (Pairs)_mm512_load_si512(queries + 4 * i);
#pragma GCC unroll 8
      for (int t = 0; t < kTokenTile; ++t) {
        const __m128i pairs = _mm_loadu_si128((const __m128i*)(keys[t] + i));
        sums[t] = Dot(sums[t], q, (Pairs)_mm512_broadcast_i32x4(pairs));
      }
    }
  }
  for (int t = 0; t < kTokenTile; t += 4) {
    const Floats* s = sums + t;
    const Floats a = _mm512_unpacklo_ps(s[0], s[1]) + _mm512_unpackhi_ps(s[0], s[1]);
    const Floats b = _mm512_unpacklo_ps(s[2], s[3]) + _mm512_unpackhi_ps(s[2], s[3]);
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    scores[t / 4] = _mm512_castpd_ps(low) + _mm512_castpd_ps(high);
  }
}

// --- Softmax -------------------------------------------------------------------------------------

// The weights of two tokens for each row, as a pair of bfloat16.
using WeightPairs = uint32_t[kBlock / 2][kRowTile];

// What the rows know of the keys so far.
struct alignas(64) Softmax {
  float top[kRowTile];
  float total[kRowTile];
  float normalizer[kRowTile];
  float decay[kRowTile];  // for the sums so far
};

inline Ints RoundedTo16(Floats x) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
}

// scores: [tokens], each a vector of rows. Rows see the tokens before `seen`.
void Weights16(Floats* scores, int tokens, float factor, Ints seen, bool masked, Softmax* softmax,
               WeightPairs weights) {
  const Floats old_top = Load(softmax->top), unseen = Splat(-__builtin_inff());
  Floats top = old_top;
  for (int t = 0; t < tokens; ++t) {
    scores[t] = scores[t] * Splat(factor);
    if (masked) {
      const __mmask16 sees = _mm512_cmpgt_epi32_mask(seen, _mm512_set1_epi32(t));
      scores[t] = _mm512_mask_mov_ps(unseen, sees, scores[t]);
    }
    top = Max(top, scores[t]);
  }
  const Floats decay = Exp2(old_top - top);
  Floats total = decay * Load(softmax->total);
  Floats normalizer = decay * Load(softmax->normalizer);
  for (int t = 0; t < tokens; t += 2) {
    const Floats a = Exp2(scores[t] - top), b = Exp2(scores[t + 1] - top);
    const Ints first = RoundedTo16(a), second = ShiftLeft(RoundedTo16(b), 16);
    total = total + (a + b);
    normalizer = normalizer + (Bits(ShiftLeft(first, 16)) + Bits(second));
    _mm512_store_si512(weights[t / 2], Or(first, second));
  }
  Store(softmax->top, top);
  Store(softmax->total, total);
  Store(softmax->normalizer, normalizer);
  Store(softmax->decay, decay);
}

// The sum of 4 neighbouring lanes, in each of them.
inline Floats SumOfQuads(Floats x) {
  x = x + _mm512_permute_ps(x, 0xb1);
  return x + _mm512_permute_ps(x, 0x4e);
}

// scores: [tokens / 4], each [4 rows][4 tokens].
void Weights4(Floats* scores, int tokens, float factor, Ints seen, bool masked, Softmax* softmax,
              WeightPairs weights) {
  const Ints row_of_lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const Ints token_of_lane = _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
  const Floats unseen = Splat(-__builtin_inff());
  const Floats old_top = _mm512_permutexvar_ps(row_of_lane, Load(softmax->top));
  seen = _mm512_permutexvar_epi32(row_of_lane, seen);
  Floats top = old_top;
  for (int t = 0; t < tokens; t += 4) {
    Floats& score = scores[t / 4];
    score = score * Splat(factor);
    if (masked) {
      const __mmask16 sees = _mm512_cmpgt_epi32_mask(seen, Add(token_of_lane, t));
      score = _mm512_mask_mov_ps(unseen, sees, score);
    }
    top = Max(top, score);
  }
  top = Max(top, _mm512_permute_ps(top, 0xb1));
  top = Max(top, _mm512_permute_ps(top, 0x4e));
  Floats total = Splat(0.0f), normalizer = Splat(0.0f);
  for (int t = 0; t < tokens; t += 4) {
    const Floats weight = Exp2(scores[t / 4] - top);
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(weight);
    total = total + weight;
    normalizer = normalizer + Bits(ShiftLeft(_mm512_cvtepu16_epi32(rounded), 16));
    // From [row][pair of tokens] to [pair of tokens][row].
    const __m256i pairs =
        _mm256_permutevar8x32_epi32(rounded, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    _mm_store_si128((__m128i*)weights[t / 2], _mm256_castsi256_si128(pairs));
    _mm_store_si128((__m128i*)weights[t / 2 + 1], _mm256_extracti128_si256(pairs, 1));
  }
  // Back to one lane a row.
  const Ints first_of_row = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  const Floats decay = _mm512_permutexvar_ps(first_of_row, Exp2(old_top - top));
  total = _mm512_permutexvar_ps(first_of_row, SumOfQuads(total));
  normalizer = _mm512_permutexvar_ps(first_of_row, SumOfQuads(normalizer));
  Store(softmax->top, _mm512_permutexvar_ps(first_of_row, top));
  Store(softmax->total, MultiplyAdd(decay, Load(softmax->total), total));
  Store(softmax->normalizer, MultiplyAdd(decay, Load(softmax->normalizer), normalizer));
  Store(softmax->decay, decay);
}

// --- Values --------------------------------------------------------------------------------------

// sums = decay * sums + weights . values, of kQuad or fewer rows. The columns of two tokens are
// interleaved within 128 bits, which leaves the sums of 32 columns in an order that Reorder undoes.
template <int rows>
void Values(const char* const* keys, int tokens, const WeightPairs weights, int first_row,
            const float* decay, int64_t latent_dim, float* sums) {
  const int64_t pitch = Pitch(latent_dim);
  for (int64_t column = 0; column < latent_dim; column += kColumnTile) {
    Floats x[rows][4];
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < 4; ++i) {
        x[r][i] = Splat(decay[r]) * Load(sums + r * pitch + column + 16 * i);
      }
    }
    for (int t = 0; t < tokens; t += 2) {
      const char *even = keys[t] + 2 * column, *odd = keys[t + 1] + 2 * column;
      const Ints a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(even + 64);
      const Ints c = _mm512_loadu_si512(odd), d = _mm512_loadu_si512(odd + 64);
      const Ints v[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c),
                         _mm512_unpacklo_epi16(b, d), _mm512_unpackhi_epi16(b, d)};
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const Pairs weight = (Pairs)_mm512_set1_epi32(weights[t / 2][first_row + r]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) x[r][i] = Dot(x[r][i], weight, (Pairs)v[i]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < 4; ++i) Store(sums + r * pitch + column + 16 * i, x[r][i]);
    }
  }
}

void Reorder(float* sums, int64_t latent_dim) {
  const Ints first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const Ints second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (int64_t column = 0; column < latent_dim; column += 32) {
    const __m512d low = _mm512_castps_pd(Load(sums + column));
    const __m512d high = _mm512_castps_pd(Load(sums + column + 16));
    Store(sums + column, _mm512_castpd_ps(_mm512_permutex2var_pd(low, first, high)));
    Store(sums + column + 16, _mm512_castpd_ps(_mm512_permutex2var_pd(low, second, high)));
  }
}

// --- The part ------------------------------------------------------------------------------------

// The next block's rows. A tile that is not full is filled up with the last row, which no query
// sees there.
int Gather(TokenRows& rows, const char** keys) {
  int tokens = 0;
  while (tokens < kBlock && rows.left() > 0) keys[tokens++] = rows.Next();
  for (int t = tokens; t > 0 && t % kTokenTile != 0; ++t) keys[t] = keys[tokens - 1];
  return tokens;
}

// float8 rows to bfloat16 ones at `widened`, of which `keys` are the addresses afterwards.
void Widen(const Part& part, const Float8Table& table, int tokens, const char** ahead,
           char* widened, const char** keys) {
  const int64_t row_bytes = 2 * part.width;
  for (int t = 0; t < tokens; ++t) {
    Prefetch(ahead[t], part.width);
    char* row = widened + t * row_bytes;
    for (int64_t i = 0; i < part.width; i += 32) {
      _mm512_storeu_si512(row + 2 * i, table.Widened(keys[t] + i));
    }
    keys[t] = row;
  }
  for (int t = tokens; t % kTokenTile != 0; ++t) keys[t] = keys[tokens - 1];
}

void Decode(const Part& part) {
  const FlushSubnormals flush;
  const int64_t row_bytes = 2 * part.width, pitch = Pitch(part.latent_dim);
  const bool wide = part.rows > kQuad;
  char* packed = static_cast<char*>(part.scratch);
  char* widened = packed + kRowTile * row_bytes;
  const char* q = static_cast<const char*>(part.q);
  if (part.q_dtype != Dtype::kBfloat16) {
    WithDtype(part.q_dtype, ToBfloat16{q, part.rows * part.width, widened});
    q = widened;
  }
  PackQueries(q, part.rows, part.width, wide ? 1 : 4, packed);

  Softmax softmax;
  int64_t visible_to_all = part.end;
  for (int r = 0; r < kRowTile; ++r) {
    softmax.top[r] = kNoScore;
    softmax.total[r] = softmax.normalizer[r] = 0.0f;
    if (r < part.rows && part.visible[r] < visible_to_all) visible_to_all = part.visible[r];
  }
  for (int r = 0; r < part.rows; ++r) {
    __builtin_memset(part.partial + r * pitch, 0, part.latent_dim * sizeof(float));
  }

  const bool float8 = part.kv_dtype != Dtype::kBfloat16;
  const Float8Table table(float8 ? part.kv_dtype : Dtype::kFloat8E4M3FN);
  TokenRows rows(part, part.begin);
  const char* buffers[2][kBlock];
  alignas(64) Floats scores[kBlock];
  alignas(64) WeightPairs weights;
  const char **keys = buffers[0], **ahead = buffers[1];
  int tokens = Gather(rows, keys);
  for (int64_t begin = part.begin; begin < part.end; begin += kBlock) {
    const int tokens_ahead = Gather(rows, ahead);
    for (int t = (tokens_ahead + kTokenTile - 1) / kTokenTile * kTokenTile; t < kBlock; ++t) {
      ahead[t] = keys[0];  // nothing to fetch
    }
    const char* next[kBlock];
    __builtin_memcpy(next, ahead, sizeof(next));
    if (float8) {
      Widen(part, table, tokens, next, widened, keys);
      for (const char*& row : next) row = keys[0];
    }

    const int padded = (tokens + kTokenTile - 1) / kTokenTile * kTokenTile;
    int32_t seen_by[kRowTile];
    for (int r = 0; r < kRowTile; ++r) {
      int64_t seen = r < part.rows ? part.visible[r] : part.end;
      seen = (seen < part.end ? seen : part.end) - begin;
      seen_by[r] = static_cast<int32_t>(seen < 0 ? 0 : seen < kBlock ? seen : kBlock);
    }
    const Ints seen = _mm512_loadu_si512(seen_by);
    const bool masked = begin + padded > visible_to_all;
    if (wide) {
      for (int t = 0; t < padded; t += kTokenTile) {
        Scores16(keys + t, next + t, packed, row_bytes, scores + t);
      }
      Weights16(scores, padded, part.factor, seen, masked, &softmax, weights);
    } else {
      for (int t = 0; t < padded; t += kTokenTile) {
        Scores4(keys + t, next + t, packed, row_bytes, scores + t / 4);
      }
      Weights4(scores, padded, part.factor, seen, masked, &softmax, weights);
    }
    for (int r = 0; r < part.rows; r += kQuad) {
      float* sums = part.partial + r * pitch;
      const float* decay = softmax.decay + r;
      const int64_t latent = part.latent_dim;
      switch (part.rows - r) {
        case 1: Values<1>(keys, padded, weights, r, decay, latent, sums); break;
        case 2: Values<2>(keys, padded, weights, r, decay, latent, sums); break;
        case 3: Values<3>(keys, padded, weights, r, decay, latent, sums); break;
        default: Values<4>(keys, padded, weights, r, decay, latent, sums); break;
      }
    }
    const char** done = keys;
    keys = ahead;
    ahead = done;
    tokens = tokens_ahead;
  }
  for (int r = 0; r < part.rows; ++r) {
    float* partial = part.partial + r * pitch;
    Reorder(partial, part.latent_dim);
    float* statistics = partial + part.latent_dim;
    statistics[kTop] = softmax.top[r];
    statistics[kTotal] = softmax.total[r];
    statistics[kNormalizer] = softmax.normalizer[r];
  }
}

}  // namespace bf16_dot

}  // namespace
}  // namespace jax_mla::cpu
