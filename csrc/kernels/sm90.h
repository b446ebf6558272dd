// SPDX-License-Identifier: Apache-2.0
// Primitives that NVIDIA's Hopper GPUs alone have, beside those of device.h.
#pragma once

#include "device.h"

#if !defined(__NVPTX__) || __CUDA_ARCH__ != 900
#error "for sm_90a only"
#endif

DEVICE u32 grid_size_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }

// --- Waves ----------------------------------------------------------------------------------------

DEVICE void wave_sync() { __nvvm_bar_warp_sync(kAllLanes); }

// The bytes of x that the four hexadecimal digits of `order` name, the lowest first.
DEVICE u32 permute_bytes(u32 x, u32 order) { return __nvvm_prmt(x, 0, order); }

// Registers of a thread from here on, for a group of four waves that call this together.
template <u32 registers>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(registers) : "memory");
}
template <u32 registers>
DEVICE void leave_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(registers) : "memory");
}

// block_sync among the `threads` threads that call it with this id, 1 to 15.
template <u32 id, u32 threads>
DEVICE void group_sync() {
  asm volatile("bar.sync %0, %1;" : : "n"(id), "n"(threads) : "memory");
}

// --- One kernel after another ---------------------------------------------------------------------

// Lets the next kernel in the stream start, if it was launched to overlap with this one.
DEVICE void start_next_kernel() { asm volatile("griddepcontrol.launch_dependents;" : : : "memory"); }
// Waits for the kernel before this one, and for what it wrote.
DEVICE void wait_for_last_kernel() { asm volatile("griddepcontrol.wait;" : : : "memory"); }

// --- Barriers in shared memory --------------------------------------------------------------------
// A phase of a barrier ends when `arrivals` threads have arrived and the bytes that they expect have
// come. Phases are counted by their parity: the first is 0.

using Barrier = u64;

DEVICE void init(Barrier& barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(arrivals)
               : "memory");
}
// After the last init: makes the barriers known to copies.
DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}
DEVICE void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
               :
               : "r"(shared_address(&barrier))
               : "memory");
}
DEVICE void arrive_and_expect(Barrier& barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of that parity has ended.
DEVICE void wait(Barrier& barrier, u32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}"
      :
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
}

// --- Tensor copies --------------------------------------------------------------------------------

// Brings the map of a cache to the copy engine, which the first copy would wait for.
DEVICE void prefetch_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
}
// Copies the box of lines that begins at `line` to shared memory; the bytes count at the barrier.
DEVICE void copy_lines(void* to, const void* map, i32 line, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];"
      :
      : "r"(shared_address(to)), "l"(map), "r"(0), "r"(line), "r"(shared_address(&barrier))
      : "memory");
}
// Between this thread's writes and later copies to the same place.
DEVICE void order_writes_before_copies() {
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

// --- Matrix instructions --------------------------------------------------------------------------

// A product of half the width of device.h's: d [16, 8] += a [16, 16] b [16, 8]. Lane l holds of a the
// pairs of columns l % 4 * 2 and + 8 of rows l / 4 and + 8 (rows first), of b transposed row l / 4.
template <typename Element>
DEVICE void multiply_add(f32 (&d)[4], u32x4 a, const u32 (&b)[2]) {
  if constexpr (__is_same(Element, bf16)) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(__is_same(Element, f16));
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
