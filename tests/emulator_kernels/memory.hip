// SPDX-License-Identifier: Apache-2.0
// Loads and stores: narrow and wide, unaligned, LDS, scratch, flat, and buffer descriptors.
#include "device.h"

using u32x4 = u32 __attribute__((ext_vector_type(4)));

// A copy of elements of any width, with some arithmetic so that sign extension shows.
#define COPY(name, Element)                                                             \
  KERNEL(256) name(const Element *input, Element *output, i64 *sums, u32 count) {       \
    THREADS {                                                                           \
      u32 i = global_id();                                                              \
      if (i < count) {                                                                  \
        output[i] = input[i];                                                           \
        sums[i] = (i64)input[i] * 3 + (i64)input[count - 1 - i];                        \
      }                                                                                 \
    }                                                                                   \
  }
COPY(copy_u8, u8)
COPY(copy_i8, i8)
COPY(copy_u16, u16)
COPY(copy_i16, i16)
COPY(copy_u32, u32)
COPY(copy_i32, i32)
COPY(copy_i64, i64)

// Halves of a register: 16 bits loaded into, and stored from, its upper part.
KERNEL(256) swap_halves(const u16 *input, u16 *output) {
  THREADS {
    u32 i = global_id();
    u32 both = input[2 * i] | (u32)input[2 * i + 1] << 16;
    output[2 * i] = both >> 16;
    output[2 * i + 1] = both;
  }
}

KERNEL(256) copy_vectors(const u32x4 *input, u32x4 *output) {
  THREADS { output[global_id()] = input[global_id()].wzyx; }
}

struct __attribute__((packed)) Unaligned {
  u8 tag;
  u64 wide;
  u32 word;
  u16 half;
};
KERNEL(256) unaligned(const Unaligned *input, Unaligned *output) {
  THREADS {
    const Unaligned &from = input[global_id()];
    Unaligned &to = output[global_id()];
    to.tag = from.tag + 1;
    to.wide = from.wide + from.word;
    to.word = from.word * 3;
    to.half = from.half ^ from.tag;
  }
}

// LDS of every width: a transposition, then sums of what others wrote.
KERNEL(256) lds_transpose(const u32 *input, u32 *output) {
  SHARED u32 tile[16][17];
  THREADS { tile[thread_id() / 16][thread_id() % 16] = input[global_id()]; }
  block_sync();
  THREADS { output[global_id()] = tile[thread_id() % 16][thread_id() / 16]; }
}

#define LDS_ROTATE(name, Element)                                            \
  KERNEL(256) name(const Element *input, Element *output) {                  \
    SHARED Element line[256];                                                \
    THREADS { line[thread_id()] = input[global_id()]; }                      \
    block_sync();                                                            \
    THREADS { output[global_id()] = line[(thread_id() * 37 + 11) & 255]; }   \
  }
LDS_ROTATE(lds_rotate_i8, i8)
LDS_ROTATE(lds_rotate_u16, u16)
LDS_ROTATE(lds_rotate_u64, u64)
LDS_ROTATE(lds_rotate_u32x4, u32x4)

// Two words an access, side by side and 64 words apart.
KERNEL(256) lds_pairs(const u32 *input, u64 *output) {
  SHARED u32 line[1024];
  THREADS {
    u32 t = thread_id(), value = input[global_id()];
    line[t] = value;
    line[t + 256] = ~value;
    line[512 + 2 * t] = value * 3;
    line[513 + 2 * t] = value * 5;
  }
  block_sync();
  THREADS {
    u32 t = 255 - thread_id();
    u64 far = line[t] | (u64)line[t + 256] << 32, near = line[512 + 2 * t] ^ line[513 + 2 * t];
    output[global_id()] = far + near;
  }
}

KERNEL(256) lds_mixed(const u32 *input, u64 *output) {
  SHARED u8 bytes[2048];
  THREADS {
    u32 t = thread_id(), value = input[global_id()];
    bytes[8 * t] = value;
    bytes[8 * t + 1] = value >> 8;
    *(u16 *)(bytes + 8 * t + 2) = value >> 16;
    *(u32 *)(bytes + 8 * t + 4) = ~value;
  }
  block_sync();
  THREADS { output[global_id()] = *(u64 *)(bytes + 8 * (255 - thread_id())); }
}

// Scratch: an array per work-item, indexed by data.
KERNEL(256) scratch(const u32 *input, u32 *output) {
  THREADS {
    u32 value = input[global_id()], sum = 0;
    u32 table[16];
    u8 bytes[16];
    for (u32 i = 0; i < 16; i++) table[i] = value ^ i * 0x9e3779b1u, bytes[i] = value >> i;
    for (u32 i = 0; i < 16; i++) {
      u32 &left = table[value >> 2 * i & 15], &right = table[(value >> i) + 5 & 15];
      u32 kept = left;
      left = right + bytes[kept & 15];
      right = kept;
    }
    for (u32 i = 0; i < 16; i++) sum = sum * 31 + table[i];
    output[global_id()] = sum;
  }
}

// A flat pointer that is LDS in some lanes, scratch in others, global memory in the rest.
KERNEL(256) flat(const u32 *input, u32 *output) {
  SHARED u32 line[256];
  THREADS { line[thread_id()] = input[global_id()] * 5; }
  block_sync();
  THREADS {
    u32 own[4] = {thread_id(), thread_id() * 7, 3, input[global_id()]};
    u32 choice = input[global_id()] % 3;
    // Volatile, or the compiler would see through the choice and load from three places.
    const u32 *volatile from = choice == 0   ? &line[255 - thread_id()]
                               : choice == 1 ? &own[input[global_id()] / 3 % 4]
                                             : &input[global_id()];
    output[global_id()] = *from;
  }
}
