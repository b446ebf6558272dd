// SPDX-License-Identifier: Apache-2.0
// The online softmax of one row, in base 2, by `lanes` neighbours that hold parts of its scores.
#pragma once

#include "device.h"

namespace jax_mla {

// The weight of a score is 2^(score - top). A score of -inf weighs nothing.
template <u32 lanes>
struct Softmax {
  f32 top = -kInfinity;  // the largest score so far, the same in all lanes
  f32 total = 0.0f;      // of the weights, the lane's part
};

// Takes scores in and makes weights of them. Weights that were made before, and what was summed
// with them, are to be multiplied by the result.
template <u32 lanes, u32 count>
DEVICE f32 update(Softmax<lanes>& row, f32 (&scores)[count]) {
  f32 largest = scores[0];
  for (u32 i = 1; i < count; ++i) largest = max(largest, scores[i]);
  const f32 top = max(row.top, reduce_max<lanes>(largest));
  const f32 base = top == -kInfinity ? 0.0f : top;  // -inf - -inf would be NaN
  const f32 decay = exp2(row.top - base);
  row.top = top;
  row.total *= decay;
  for (u32 i = 0; i < count; ++i) {
    scores[i] = exp2(scores[i] - base);
    row.total += scores[i];
  }
  return decay;
}

// What makes the weighted sum normal, and the natural log-sum-exp; 0 and -inf of no keys. NaN
// stays.
template <u32 lanes>
DEVICE f32 finish(const Softmax<lanes>& row, f32& lse) {
  const f32 total = reduce_sum<lanes>(row.total);
  lse = (row.top + log2(total)) * kLn2;
  return total == 0.0f ? 0.0f : 1.0f / total;
}

}  // namespace jax_mla
