// SPDX-License-Identifier: Apache-2.0
// Tiny kernels that do something wrong, and some twins that do not. Arguments: x, y (addresses).
// On entry s[0:1] holds the arguments' address, s2 the workgroup, v0 the work-item.

.macro begin name
  .globl \name
  .p2align 8
  .type \name,@function
\name:
  s_load_dwordx4 s[4:7], s[0:1], 0x0
  v_lshlrev_b32 v1, 2, v0
  s_waitcnt lgkmcnt(0)
.endm

.macro end name, vgprs=32, lds=2048, scratch=0
  s_endpgm
  .section .rodata,"a"
  .p2align 6
  .amdhsa_kernel \name
    .amdhsa_group_segment_fixed_size \lds
    .amdhsa_private_segment_fixed_size \scratch
    .amdhsa_kernarg_size 16
    .amdhsa_user_sgpr_kernarg_segment_ptr 1
    .amdhsa_next_free_vgpr \vgprs
    .amdhsa_next_free_sgpr 32
    .amdhsa_accum_offset 32
    .amdhsa_float_denorm_mode_32 3
  .end_amdhsa_kernel
  .text
.endm

.text

// ---- loads and the registers they own: y[i] = x[i] + 1
begin add_one
  global_load_dword v2, v1, s[4:5]
  s_waitcnt vmcnt(0)
  v_add_u32 v2, 1, v2
  global_store_dword v1, v2, s[6:7]
end add_one

begin load_not_awaited
  global_load_dword v2, v1, s[4:5]
  v_add_u32 v2, 1, v2
  global_store_dword v1, v2, s[6:7]
end load_not_awaited

begin load_overwritten
  global_load_dword v2, v1, s[4:5]
  v_mov_b32 v2, 1
end load_overwritten

begin wrong_counter
  global_load_dword v2, v1, s[4:5]
  s_waitcnt lgkmcnt(0)
  v_add_u32 v2, 1, v2
end wrong_counter

begin first_of_two
  global_load_dword v2, v1, s[4:5]
  global_load_dword v3, v1, s[4:5] offset:4
  s_waitcnt vmcnt(1)
  v_add_u32 v2, 1, v2
  global_store_dword v1, v2, s[6:7]
end first_of_two

begin second_of_two
  global_load_dword v2, v1, s[4:5]
  global_load_dword v3, v1, s[4:5] offset:4
  s_waitcnt vmcnt(1)
  v_add_u32 v3, 1, v3
end second_of_two

begin scalar_not_awaited
  s_load_dword s8, s[4:5], 0x0
  s_add_u32 s8, s8, 1
end scalar_not_awaited

begin scalar_partly_awaited  // scalar loads return in any order: a count above 0 tells nothing
  s_load_dword s8, s[4:5], 0x0
  s_load_dword s9, s[4:5], 0x4
  s_waitcnt lgkmcnt(1)
  s_add_u32 s8, s8, 1
end scalar_partly_awaited

begin lds_not_awaited
  ds_write_b32 v1, v0
  ds_read_b32 v2, v1
  v_add_u32 v2, 1, v2
end lds_not_awaited

begin flat_partly_awaited  // FLAT counts in both counters
  v_mov_b32 v2, s4
  v_mov_b32 v3, s5
  flat_load_dword v4, v[2:3]
  s_waitcnt vmcnt(0)
  v_add_u32 v4, 1, v4
end flat_partly_awaited

begin load_used_late
  global_load_dword v2, v1, s[4:5]
  .rept 220
  s_nop 0
  .endr
  v_add_u32 v2, 1, v2
  global_store_dword v1, v2, s[6:7]
end load_used_late

begin stored_data_overwritten  // a store wider than 64 bits reads its data late
  v_mov_b32 v5, 0
  v_lshlrev_b32 v1, 4, v0
  global_store_dwordx4 v1, v[4:7], s[6:7]
  v_mov_b32 v5, 1
end stored_data_overwritten

begin stored_data_kept
  v_mov_b32 v4, 1
  v_mov_b32 v5, 2
  v_mov_b32 v6, 3
  v_mov_b32 v7, 4
  v_lshlrev_b32 v1, 4, v0
  global_store_dwordx4 v1, v[4:7], s[6:7]
  s_nop 1
  v_mov_b32 v5, 9
end stored_data_kept

// ---- between waves: y[i] = the number of the work-item 64 on, through LDS
.macro exchange
  v_add_u32 v2, 64, v0
  v_and_b32 v2, 0xff, v2
  v_lshlrev_b32 v2, 2, v2
.endm
.macro finish_exchange
  ds_read_b32 v3, v2
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v3, s[6:7]
.endm

begin exchange_lds
  exchange
  ds_write_b32 v1, v0
  s_waitcnt lgkmcnt(0)
  s_barrier
  finish_exchange
end exchange_lds

begin barrier_without_wait
  exchange
  ds_write_b32 v1, v0
  s_barrier
  finish_exchange
end barrier_without_wait

begin wait_without_barrier
  exchange
  ds_write_b32 v1, v0
  s_waitcnt lgkmcnt(0)
  finish_exchange
end wait_without_barrier

begin barrier_with_weak_wait
  exchange
  ds_write_b32 v1, v0
  ds_read_b32 v4, v1
  s_waitcnt lgkmcnt(1)
  ds_write_b32 v1, v0 offset:1024
  s_waitcnt lgkmcnt(2)
  s_barrier
  ds_read_b32 v3, v2 offset:1024
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v3, s[6:7]
end barrier_with_weak_wait

begin overwritten_by_another_wave
  v_and_b32 v2, 0xfc, v1
  ds_write_b32 v2, v0
end overwritten_by_another_wave

.macro load_to_lds
  s_mov_b32 s8, s4
  s_mov_b32 s9, s5
  s_mov_b32 s10, 1024
  s_mov_b32 s11, 0x20000
  v_readfirstlane_b32 s12, v1
  s_mov_b32 m0, s12
  buffer_load_dword v1, s[8:11], 0 offen lds
.endm
begin load_to_lds_not_awaited
  load_to_lds
  ds_read_b32 v3, v1
end load_to_lds_not_awaited

begin load_to_lds_awaited
  load_to_lds
  s_waitcnt vmcnt(0)
  ds_read_b32 v3, v1
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v3, s[6:7]
end load_to_lds_awaited

begin exchange_memory  // a barrier is enough: the waves share a cache
  exchange
  global_store_dword v1, v0, s[6:7]
  s_barrier
  global_load_dword v3, v2, s[6:7]
  s_waitcnt vmcnt(0)
  s_barrier
  global_store_dword v1, v3, s[6:7]
end exchange_memory

begin memory_without_barrier
  exchange
  global_store_dword v1, v0, s[6:7]
  s_waitcnt vmcnt(0)
  global_load_dword v3, v2, s[6:7]
end memory_without_barrier

begin barrier_mismatch
  v_readfirstlane_b32 s8, v0
  s_cmp_eq_u32 s8, 64
  s_cbranch_scc1 skip
  s_barrier
skip:
end barrier_mismatch

// ---- addresses
begin store_beyond
  global_store_dword v1, v0, s[6:7] offset:4
end store_beyond

begin store_to_x
  global_store_dword v1, v0, s[4:5]
end store_to_x

begin lds_beyond
  ds_write_b32 v1, v0 offset:2048
end lds_beyond

begin scratch_beyond
  scratch_store_dword off, v0, off offset:8
end scratch_beyond, scratch=8

begin misaligned_atomic
  global_atomic_add v1, v0, s[6:7] offset:2
end misaligned_atomic

begin misaligned_scalar
  s_add_u32 s4, s4, 2
  s_load_dword s8, s[4:5], 0x0
end misaligned_scalar

begin lds_never_written
  ds_read_b32 v2, v1
end lds_never_written

begin jump_away
  s_mov_b64 s[8:9], 0
  s_setpc_b64 s[8:9]
end jump_away

// ---- instructions and limits
begin unknown_encoding
  .long 0xffffffff
end unknown_encoding

begin not_implemented
  v_cubeid_f32 v1, v2, v3, v4
end not_implemented

begin endless
again:
  s_branch again
end endless

begin many_registers
end many_registers, vgprs=256
