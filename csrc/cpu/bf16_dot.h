// SPDX-License-Identifier: Apache-2.0
// Decode with AVX-512's dot products of bfloat16 pairs. Keys in bfloat16 are read where they lie,
// float8 ones are widened to bfloat16, which holds each of them; weights are rounded to bfloat16,
// and the output is normalized by the sum of the rounded ones.
//
// Rows go by fours: a vector of queries holds 4 pairs of columns of each, and a row's arithmetic is the
// same in any company.
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
constexpr int kMaxQuads = kRowTile / kQuad;

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

// Lays rows of bfloat16 out as vectors, by quads: 4 pairs of row 0, of row 1 and so on, then the next
// pairs. Rows that are not there are zeros.
void PackQueries(const char* rows, int num_rows, int64_t width, char* packed) {
  const int64_t row_bytes = 2 * width, chunk = 16;
  __builtin_memset(packed, 0, kRowTile * row_bytes);
  for (int r = 0; r < num_rows; ++r) {
    char* quad = packed + r / kQuad * kQuad * row_bytes + r % kQuad * chunk;
    for (int64_t i = 0; i < row_bytes; i += chunk) {
      __builtin_memcpy(quad + i * kQuad, rows + r * row_bytes + i, chunk);
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

// The sums of 4 tokens' vectors, each [4 rows][4 numbers], become one vector [4 rows][4 tokens].
inline Floats SumPairs(const Floats* s) {
  const Floats a = _mm512_unpacklo_ps(s[0], s[1]) + _mm512_unpackhi_ps(s[0], s[1]);
  const Floats b = _mm512_unpacklo_ps(s[2], s[3]) + _mm512_unpackhi_ps(s[2], s[3]);
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  return _mm512_castpd_ps(low) + _mm512_castpd_ps(high);
}

// factor * (q . k) of so many quads of rows; `ahead` is fetched meanwhile.
template <int quads>
void Scores(const char* const* keys, const char* const* ahead, int tokens, const char* queries,
            int64_t row_bytes, float factor, Floats (*scores)[kBlock / 4]) {
  constexpr int kTile = quads > 2 ? 4 : 8;  // tokens, as many as there are registers for
  for (int token = 0; token < tokens; token += kTile) {
    Floats sums[quads][kTile];
#pragma GCC unroll 4
    for (auto& quad : sums) {
#pragma GCC unroll 8
      for (Floats& sum : quad) sum = Splat(0.0f);
    }
    for (int64_t line = 0; line < row_bytes; line += 64) {
      for (int t = 0; t < kTile; ++t) _mm_prefetch(ahead[token + t] + line, _MM_HINT_T1);
#pragma GCC unroll 4
      for (int64_t i = line; i < line + 64; i += 16) {
        Pairs q[quads];
#pragma GCC unroll 4
        for (int n = 0; n < quads; ++n) {
          q[n] = (Pairs)_mm512_load_si512(queries + kQuad * (n * row_bytes + i));
        }
#pragma GCC unroll 8
        for (int t = 0; t < kTile; ++t) {
          const __m128i pairs = _mm_loadu_si128((const __m128i*)(keys[token + t] + i));
          const Pairs k = (Pairs)_mm512_broadcast_i32x4(pairs);
#pragma GCC unroll 4
          for (int n = 0; n < quads; ++n) sums[n][t] = Dot(sums[n][t], q[n], k);
        }
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < quads; ++n) {
      for (int t = 0; t < kTile; t += 4) {
        scores[n][(token + t) / 4] = SumPairs(sums[n] + t) * Splat(factor);
      }
    }
  }
}

// --- Softmax -------------------------------------------------------------------------------------

// The sum of 4 neighbouring lanes, in each of them.
inline Floats SumOfQuads(Floats x) {
  x = x + _mm512_permute_ps(x, 0xb1);
  return x + _mm512_permute_ps(x, 0x4e);
}

// What a quad of rows knows of the keys so far: vectors [4 rows][4 tokens], of which the sums are
// not summed over the lanes of a row yet.
struct Softmax {
  Floats top = Splat(kNoScore);
  Floats total = Splat(0.0f);
  Floats normalizer = Splat(0.0f);
  alignas(64) float decay[kLanes];  // for the sums so far

  // Scores to weights, rounded to bfloat16 and in pairs of tokens.
  void Update(const Floats* scores, int tokens, uint32_t (*weights)[kQuad]) {
    Floats new_top = top;
    for (int t = 0; t < tokens; t += 4) new_top = Max(new_top, scores[t / 4]);
    new_top = Max(new_top, _mm512_permute_ps(new_top, 0xb1));
    new_top = Max(new_top, _mm512_permute_ps(new_top, 0x4e));
    const Floats factor_before = Exp2(top - new_top);
    top = new_top;
    total = total * factor_before;
    normalizer = normalizer * factor_before;
    Store(decay, factor_before);
    for (int t = 0; t < tokens; t += 4) {
      const Floats weight = Exp2(scores[t / 4] - top);
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(weight);
      total = total + weight;
      normalizer = normalizer + Bits(ShiftLeft(_mm512_cvtepu16_epi32(rounded), 16));
      // From [row][pair of tokens] to [pair of tokens][row].
      const __m256i pairs =
          _mm256_permutevar8x32_epi32(rounded, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
      _mm256_storeu_si256((__m256i*)weights[t / 2], pairs);
    }
  }

  void Write(int row, float* statistics) const {
    alignas(64) float lanes[kLanes];
    Store(lanes, top);
    statistics[kTop] = lanes[4 * row];
    Store(lanes, SumOfQuads(total));
    statistics[kTotal] = lanes[4 * row];
    Store(lanes, SumOfQuads(normalizer));
    statistics[kNormalizer] = lanes[4 * row];
  }
};

// --- Values --------------------------------------------------------------------------------------

// sums = decay * sums + weights . values, of kQuad or fewer rows. The columns of two tokens are
// interleaved within 128 bits, which leaves the sums of 32 columns in an order that Reorder undoes.
template <int rows>
void Values(const char* const* keys, int tokens, const uint32_t (*weights)[kQuad],
            const float* decay, int64_t latent_dim, float* sums) {
  const int64_t pitch = Pitch(latent_dim);
  for (int64_t column = 0; column < latent_dim; column += kColumnTile) {
    Floats x[rows][4];
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < 4; ++i) {
        x[r][i] = Splat(decay[4 * r]) * Load(sums + r * pitch + column + 16 * i);
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
        const Pairs weight = (Pairs)_mm512_set1_epi32(weights[t / 2][r]);
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

int Padded(int tokens) { return (tokens + kTokenTile - 1) / kTokenTile * kTokenTile; }

// Takes from 4 rows the tokens that they do not see.
void Mask(const Part& part, int first_row, int64_t begin, int tokens, Floats* scores) {
  int32_t lanes[kLanes];  // each has every 4th token, and sees so many from its first
  for (int i = 0; i < kLanes; ++i) {
    const int row = first_row + i / 4;
    const int64_t visible = row < part.rows ? part.visible[row] : part.end;
    const int64_t seen = (visible < part.end ? visible : part.end) - begin;
    lanes[i] = static_cast<int32_t>(seen < 0 ? 0 : seen < kBlock ? seen : kBlock) - i % 4;
  }
  const Ints seen = _mm512_loadu_si512(lanes);
  for (int t = 0; t < tokens; t += 4) {
    const __mmask16 sees = _mm512_cmpgt_epi32_mask(seen, _mm512_set1_epi32(t));
    scores[t / 4] = _mm512_mask_mov_ps(Splat(-__builtin_inff()), sees, scores[t / 4]);
  }
}

// The next block's rows. A tile that is not full is filled up with the last row, which no query
// sees there.
int Gather(TokenRows& rows, const char** keys) {
  int tokens = 0;
  while (tokens < kBlock && rows.left() > 0) keys[tokens++] = rows.Next();
  for (int t = tokens; t < Padded(tokens); ++t) keys[t] = keys[tokens - 1];
  return tokens;
}

// float8 rows to bfloat16 ones at `widened`, of which `keys` are the addresses afterwards.
void Widen(const Part& part, const Float8Table& table, int tokens, const char* const* ahead,
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
  for (int t = tokens; t < Padded(tokens); ++t) keys[t] = keys[tokens - 1];
}

void Decode(const Part& part) {
  const FlushSubnormals flush;
  const int64_t row_bytes = 2 * part.width, pitch = Pitch(part.latent_dim);
  const int quads = (part.rows + kQuad - 1) / kQuad;
  char* packed = static_cast<char*>(part.scratch);
  char* widened = packed + kRowTile * row_bytes;
  const char* q = static_cast<const char*>(part.q);
  if (part.q_dtype != Dtype::kBfloat16) {
    WithDtype(part.q_dtype, ToBfloat16{q, part.rows * part.width, widened});
    q = widened;
  }
  PackQueries(q, part.rows, part.width, packed);

  Softmax softmax[kMaxQuads];
  int64_t visible_to_all = part.end;
  for (int r = 0; r < part.rows; ++r) {
    if (part.visible[r] < visible_to_all) visible_to_all = part.visible[r];
    __builtin_memset(part.partial + r * pitch, 0, part.latent_dim * sizeof(float));
  }

  const bool float8 = part.kv_dtype != Dtype::kBfloat16;
  const Float8Table table(float8 ? part.kv_dtype : Dtype::kFloat8E4M3FN);
  TokenRows rows(part, part.begin);
  RowsAhead rows_ahead(part, part.begin + kBlock);
  const char *keys[kBlock], *ahead[kBlock];
  Floats scores[kMaxQuads][kBlock / 4];
  alignas(64) uint32_t weights[kMaxQuads][kBlock / 2][kQuad];
  for (int64_t begin = part.begin; begin < part.end; begin += kBlock) {
    const int tokens = Gather(rows, keys);
    rows_ahead.Take(kBlock, keys[0], ahead);
    if (float8) {
      Widen(part, table, tokens, ahead, widened, keys);
      for (const char*& row : ahead) row = keys[0];  // fetched by now
    }

    const int padded = Padded(tokens);
    const float factor = part.factor;
    switch (quads) {
      case 1: Scores<1>(keys, ahead, padded, packed, row_bytes, factor, scores); break;
      case 2: Scores<2>(keys, ahead, padded, packed, row_bytes, factor, scores); break;
      case 3: Scores<3>(keys, ahead, padded, packed, row_bytes, factor, scores); break;
      default: Scores<4>(keys, ahead, padded, packed, row_bytes, factor, scores); break;
    }
    for (int n = 0; n < quads; ++n) {
      if (begin + padded > visible_to_all) Mask(part, n * kQuad, begin, padded, scores[n]);
      softmax[n].Update(scores[n], padded, weights[n]);
    }
    for (int n = 0; n < quads; ++n) {
      float* sums = part.partial + n * kQuad * pitch;
      const float* decay = softmax[n].decay;
      switch (part.rows - n * kQuad) {
        case 1: Values<1>(keys, padded, weights[n], decay, part.latent_dim, sums); break;
        case 2: Values<2>(keys, padded, weights[n], decay, part.latent_dim, sums); break;
        case 3: Values<3>(keys, padded, weights[n], decay, part.latent_dim, sums); break;
        default: Values<4>(keys, padded, weights[n], decay, part.latent_dim, sums); break;
      }
    }
  }
  for (int r = 0; r < part.rows; ++r) {
    float* partial = part.partial + r * pitch;
    Reorder(partial, part.latent_dim);
    softmax[r / kQuad].Write(r % kQuad, partial + part.latent_dim);
  }
}

}  // namespace bf16_dot

}  // namespace
}  // namespace jax_mla::cpu
