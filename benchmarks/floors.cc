// SPDX-License-Identifier: Apache-2.0
// What a decode cannot be faster than on a CPU: reading its pages, and its products alone.
#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Calls function(piece) for each on so many threads, this one among them, which take them in turn.
template <typename Function>
void InPieces(int64_t count, int threads, const Function& function) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t piece; (piece = next.fetch_add(1)) < count;) function(piece);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
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
  InPieces(count, threads, [&](int64_t piece) {
    const uint64_t bits = Read(pages + page_indices[piece] * page_bytes, page_bytes);
    asm volatile("" ::"r"(bits));  // somebody wants to know
  });
}

// So many instructions, each of 32 multiply-adds of bfloat16. False where there is none.
extern "C" bool multiply(int64_t instructions, int threads) {
#if defined(__AVX512BF16__)
  constexpr int64_t kPiece = 12 * 1024;
  InPieces((instructions + kPiece - 1) / kPiece, threads, [&](int64_t piece) {
    const __m512bh a = {}, b = {};
    __m512 x[12] = {};
    const int64_t left = instructions - piece * kPiece, end = left < kPiece ? left : kPiece;
    for (int64_t i = 0; i < end; i += 12) {
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
