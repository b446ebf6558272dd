// SPDX-License-Identifier: Apache-2.0
// A block of threads on the CPU. Each thread is a fiber; what a wave or the block does together waits
// for the last of them. Which runs next, and when a copy arrives, is drawn by a seed.
//
// It knows nothing of kernels: nvptx.h and sm90.h of this folder, which kernels are compiled with in
// place of their own, are written in its terms.
#pragma once

namespace machine {

struct Index {
  unsigned thread, block[3], grid[3];
};
const Index& index();

// Of a wave, whose lanes must all be at the same `operation`. `all` makes of what 32 lanes give, one
// after the other, what each of them gets.
void* together(const void* operation, const void* in, unsigned in_bytes, unsigned out_bytes,
               void (*all)(const void* in, void* out));

// Among `threads` threads.
void meet(unsigned barrier, unsigned threads);

// A barrier in shared memory, an mbarrier.
struct Barrier {
  int arrivals;  // that a phase takes
  int left;
  long long bytes;  // expected, less those that came
  unsigned phase;
};
void arrive_at(Barrier& barrier, unsigned bytes);
void wait_for(Barrier& barrier, unsigned parity);

// A tensor map: `lines` of line_bytes, which are copied box_lines at a time.
struct Map {
  const char* start;
  unsigned long long lines;
  unsigned line_bytes, box_lines;
};
// Some time, with 16-byte pieces swizzled by 128-byte lines of the destination.
void copy_box(char* to, const Map& map, int line, Barrier& barrier);
// When this thread waits for its copies.
void copy_word(void* to, const void* from);
void wait_for_words();

// Runs the blocks of a grid one after the other, each in shared memory full of NaN. Null, or what went
// wrong: then threads are left where they were.
const char* launch(void (*kernel)(void*), void* arguments, const unsigned* grid, unsigned threads,
                   unsigned seed, char* shared, unsigned long long shared_bytes);

}  // namespace machine
