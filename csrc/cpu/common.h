// SPDX-License-Identifier: Apache-2.0
// What every instruction set's decode has in common: walking the pages, and the merge.
#pragma once

#include "cpu/kernel.h"
#include "cpu/lanes.h"

namespace jax_mla::cpu {
namespace {

// The largest score of a row that has seen no key. Finite, so that the difference of two is no NaN.
constexpr float kNoScore = -3e38f;

// The results of subnormal numbers must not depend on how a thread was set up: they are zeros.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};

// The rows of a sequence's tokens, one after the other.
class TokenRows {
 public:
  TokenRows(const Part& part, int64_t token)
      : part_(part),
        row_bytes_(part.width * ItemSize(part.kv_dtype)),
        slot_(token / part.page_size),
        offset_(token % part.page_size),
        left_(part.end - token) {
    if (left_ > 0) EnterPage();
  }

  int64_t left() const { return left_; }

  // Only while there are some left.
  const char* Next() {
    const char* row = page_ + offset_ * row_bytes_;
    if (--left_ > 0 && ++offset_ == part_.page_size) {
      offset_ = 0;
      ++slot_;
      EnterPage();
    }
    return row;
  }

 private:
  void EnterPage() {
    int64_t page = part_.page_indices[slot_];
    page = page < 0 ? 0 : page < part_.pages ? page : part_.pages - 1;
    page_ = static_cast<const char*>(part_.kv_pages) + page * part_.page_size * row_bytes_;
  }

  const Part& part_;
  const char* page_ = nullptr;
  int64_t row_bytes_;
  int64_t slot_;
  int64_t offset_;
  int64_t left_;
};

// The rows after those in use: the part's own from a token on, then the next part's.
class RowsAhead {
 public:
  RowsAhead(const Part& part, int64_t token)
      : own_(part, token),
        next_(part.next ? *part.next : part, part.next ? part.next->begin : part.end),
        rows_per_page_(4096 / (part.width * ItemSize(part.kv_dtype))) {}

  // So many of them, with `used` where there are no more. A line is asked for in each 4 KB: their
  // addresses are translated side by side then, where each by itself holds up what comes behind it.
  void Take(int count, const char* used, const char** rows) {
    for (int i = 0; i < count; ++i) {
      rows[i] = own_.left() > 0 ? own_.Next() : next_.left() > 0 ? next_.Next() : used;
    }
    const int step = rows_per_page_ > 1 ? static_cast<int>(rows_per_page_) : 1;
    for (int i = 0; i < count; i += step) _mm_prefetch(rows[i], _MM_HINT_T1);
  }

 private:
  TokenRows own_, next_;
  int64_t rows_per_page_;
};

inline void Prefetch(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T1);
}

// Calls `function` with the dtype as a template argument.
template <typename Function>
inline void WithDtype(Dtype dtype, const Function& function) {
  switch (dtype) {
    case Dtype::kFloat32: return function.template Run<Dtype::kFloat32>();
    case Dtype::kBfloat16: return function.template Run<Dtype::kBfloat16>();
    case Dtype::kFloat16: return function.template Run<Dtype::kFloat16>();
    case Dtype::kFloat8E4M3FN: return function.template Run<Dtype::kFloat8E4M3FN>();
    case Dtype::kFloat8E4M3FNUZ: return function.template Run<Dtype::kFloat8E4M3FNUZ>();
  }
}

void MergeParts(const Merge& merge) {
  const FlushSubnormals flush;
  const auto statistic = [&](int64_t part, Statistic which) {
    return merge.partial[part * merge.part_stride + merge.latent_dim + which];
  };
  float top = kNoScore, total = 0.0f, normalizer = 0.0f;
  for (int64_t part = 0; part < merge.parts; ++part) {
    if (statistic(part, kTop) > top) top = statistic(part, kTop);
  }
  for (int64_t part = 0; part < merge.parts; ++part) {
    const float weight = Exp2(statistic(part, kTop) - top);
    total += weight * statistic(part, kTotal);
    normalizer += weight * statistic(part, kNormalizer);
  }
  const bool seen = !(total == 0.0f);  // NaN is not hidden
  const Floats factor = Splat(seen ? merge.value_scale / normalizer : 0.0f);
  constexpr int kVectors = kColumnTile / kLanes;
  for (int64_t column = 0; column < merge.latent_dim; column += kColumnTile) {
    Floats sums[kVectors];
    for (Floats& sum : sums) sum = Splat(0.0f);
    for (int64_t part = 0; part < merge.parts; ++part) {
      const float* values = merge.partial + part * merge.part_stride;
      const Floats weight = Splat(Exp2(statistic(part, kTop) - top));
      for (int i = 0; i < kVectors; ++i) {
        sums[i] = MultiplyAdd(weight, Load(values + column + i * kLanes), sums[i]);
      }
    }
    for (int i = 0; i < kVectors; ++i) {
      Narrow(merge.out_dtype, merge.out, column + i * kLanes, sums[i] * factor);
    }
  }
  constexpr float kLog2 = 0.693147180559945f;
  *merge.lse = seen ? (top + __builtin_log2f(total)) * kLog2 : -__builtin_inff();
}

}  // namespace
}  // namespace jax_mla::cpu
