// SPDX-License-Identifier: Apache-2.0
// What a decode cannot be faster than on a CPU: reading its pages, and its products alone.
#include <immintrin.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Calls function(begin, end) for equal parts of [0, count) on so many threads, this one among them.
template <typename Function>
void InParts(int64_t count, int threads, const Function& function) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back(function, count * i / threads, count * (i + 1) / threads);
  }
  function(0, count / threads);
  for (std::thread& other : others) other.join();
}

uint64_t Read(const char* from, int64_t bytes) {
  __m256i x[4] = {};
  for (int64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(from + i + 4096, _MM_HINT_T0);
    _mm_prefetch(from + i + 4160, _MM_HINT_T0);
    for (int j = 0; j < 4; ++j) {
      x[j] = _mm256_or_si256(x[j], _mm256_loadu_si256((const __m256i*)(from + i + 32 * j)));
    }
  }
  const __m256i all = _mm256_or_si256(_mm256_or_si256(x[0], x[1]), _mm256_or_si256(x[2], x[3]));
  return _mm256_extract_epi64(all, 0) | _mm256_extract_epi64(all, 2);
}

}  // namespace

// page_bytes: a multiple of 128.
extern "C" void read_pages(const char* pages, const int32_t* page_indices, int64_t count,
                           int64_t page_bytes, int threads) {
  InParts(count, threads, [&](int64_t begin, int64_t end) {
    uint64_t bits = 0;
    for (int64_t i = begin; i < end; ++i) bits |= Read(pages + page_indices[i] * page_bytes, page_bytes);
    asm volatile("" ::"r"(bits));  // somebody wants to know
  });
}

// So many instructions, each of 32 multiply-adds of bfloat16. False where there is none.
extern "C" bool multiply(int64_t instructions, int threads) {
#if defined(__AVX512BF16__)
  InParts(instructions, threads, [&](int64_t begin, int64_t end) {
    const __m512bh a = {}, b = {};
    __m512 x[12] = {};
    for (int64_t i = begin; i < end; i += 12) {
#pragma GCC unroll 12
      for (int j = 0; j < 12; ++j) {
        x[j] = _mm512_dpbf16_ps(x[j], a, b);
        asm volatile("" : "+v"(x[j]));  // not to be left out
      }
    }
  });
  return true;
#else
  return false;
#endif
}
