/* SPDX-License-Identifier: Apache-2.0
 * The C API of the instruction emulator: memory, code objects, launches, counters.
 *
 * A device address is the host address of the same bytes. Functions that return int give 0, or
 * nonzero with emu_last_error() set. A context may be used from several threads at once; only
 * emu_unload and emu_destroy must not overlap with a launch that uses what they end. */
#ifndef JAX_MLA_EMU_H
#define JAX_MLA_EMU_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct emu_context emu_context; /* registered memory and options */
typedef struct emu_module emu_module;   /* one loaded code object */

/* The text of the last failure in the calling thread: after a failed launch, the whole report. */
const char *emu_last_error(void);

emu_context *emu_create(void);
void emu_destroy(emu_context *context);

/* Options (default):
 *   threads (1)           host threads that run workgroups
 *   resident (1)          workgroups a host thread interleaves, for kernels that wait for others
 *   quantum (1)           instructions a wave runs before the next one of its workgroup; 1 keeps
 *                         the waves nearly in lockstep
 *   bounds (1)            every access must lie in registered memory
 *   waits (1)             s_waitcnt is modelled: 2 to the letter of the ISA, as compilers use it; 1
 *                         as hand-written kernels do that count on latency (README); 0 not at all
 *   uninitialised (0)     reading LDS or memory that nothing has written is an error
 *   traffic (1)           bytes read and written are counted per registered allocation
 *   max_instructions (0)  limit for one workgroup; 0 is none
 *   trace (0)             n prints every instruction of the n-th wave of a launch, from 1 */
int emu_set_option(emu_context *context, const char *name, int64_t value);

/* Makes [ptr, ptr + bytes) device memory. The name is copied and appears in reports. The same bytes
 * may be registered again, under another name; part of them may not. */
int emu_register(emu_context *context, const void *ptr, size_t bytes, const char *name,
                 int writable);
int emu_unregister(emu_context *context, const void *ptr);

/* For "uninitialised": the host has written these bytes (a copy to the device, a fill). */
int emu_mark_written(emu_context *context, const void *ptr, size_t bytes);

/* From now on launches add to map, one byte for each byte of the allocation at ptr: 1 when it was
 * read, 2 when it was written. A null ptr stands for the kernel argument block. The caller keeps
 * map alive; a null map ends it. Needs the option "traffic". */
int emu_track(emu_context *context, const void *ptr, uint8_t *map);

/* Loads an ELF code object, or the entry for arch of a clang offload bundle. A null arch takes what
 * there is. The bytes are copied. Returns null on failure. */
emu_module *emu_load(emu_context *context, const void *bytes, size_t size, const char *arch);
void emu_unload(emu_module *module);
const char *emu_arch(const emu_module *module);

/* Address and size of a device variable, or null. */
void *emu_symbol(emu_module *module, const char *name, size_t *size);

typedef struct {
  const char *name; /* symbol without ".kd" */
  uint32_t kernarg_bytes;
  uint32_t explicit_bytes; /* kernarg_bytes without the hidden arguments that a launch fills in */
  uint32_t static_lds, private_bytes;
  uint32_t max_workgroup_size;
  uint32_t sgprs, vgprs, agprs;
  uint32_t arguments;
} emu_kernel_info;

typedef struct {
  const char *name, *kind; /* kind: value_kind of the metadata, such as "global_buffer" */
  uint32_t offset, size;
} emu_argument_info;

size_t emu_kernel_count(const emu_module *module);
int emu_kernel(const emu_module *module, size_t index, emu_kernel_info *info);
int emu_kernel_argument(const emu_module *module, size_t kernel, size_t index,
                        emu_argument_info *info);

enum { EMU_READ = 1, EMU_WRITE = 2 };

typedef struct {
  const void *ptr;
  size_t bytes;
  const char *name;
  int access; /* EMU_READ, EMU_WRITE or both */
} emu_extent;

typedef struct {
  const char *kernel; /* symbol; null takes the only kernel there is */
  uint32_t grid[3]; /* in workgroups */
  uint32_t block[3]; /* in work-items */
  uint32_t dynamic_lds;
  const void *kernarg; /* hidden arguments at or beyond kernarg_bytes are filled in */
  size_t kernarg_bytes;
  const emu_extent *extents; /* with any, the launch may touch nothing else but its code object */
  size_t extent_count; /* and its arguments; traffic is then counted per extent */
} emu_launch_config;

typedef struct {
  uint64_t instructions; /* wave instructions, the sum of the families that follow */
  uint64_t scalar, branch, vector, matrix, lds, vector_memory, scalar_memory, control;
  uint64_t barriers; /* s_barrier, once a wave like all instructions */
  uint64_t workgroups, waves;
  uint64_t clipped_reads, clipped_writes; /* lanes outside a buffer descriptor's range */
  double seconds;
} emu_counters;

/* Runs a kernel to its end. Waits for it; the counters may be null. */
int emu_launch(emu_module *module, const emu_launch_config *config, emu_counters *counters);

typedef struct {
  const char *name; /* lives until the next launch of the calling thread */
  const void *ptr;
  uint64_t read_total, written_total; /* bytes moved */
  uint64_t read_distinct, written_distinct; /* different bytes touched */
} emu_traffic;

/* What the last launch of the calling thread touched, in address order (option "traffic"). */
size_t emu_traffic_count(void);
int emu_traffic_at(size_t index, emu_traffic *traffic);

/* Writes the text of the instruction at a byte offset of the code; returns its size in bytes, or 0
 * at the end of the code. *implemented tells whether the emulator can execute it. */
size_t emu_disassemble(emu_module *module, uint64_t offset, char *text, size_t size,
                       int *implemented);

#ifdef __cplusplus
}
#endif
#endif
