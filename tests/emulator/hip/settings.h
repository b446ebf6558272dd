// SPDX-License-Identifier: Apache-2.0
// What is emulated: the GPU, how many of them, and how strictly. From JAX_MLA_EMULATOR.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hip {

struct Settings {
  std::string arch = "gfx942";    // or gfx950
  int devices = 1;
  size_t memory = size_t{16} << 30;  // bytes a device claims to have; committed when written
  int threads = 1;                   // host threads that run workgroups
  int waits = 1;                     // how strictly s_waitcnt is modelled: see emu.h
  bool uninitialised = false;        // report reads of memory that nothing has written
  bool random_streams = false;       // run queued work in a random legal order, not at once
  uint64_t seed = 0;                 // of that order

  bool gfx950() const { return arch == "gfx950"; }
  std::string target() const { return arch + ":sramecc+:xnack-"; }
  const char* name() const {
    return gfx950() ? "Emulated AMD Instinct MI355X" : "Emulated AMD Instinct MI300X";
  }
  int compute_units() const { return gfx950() ? 256 : 304; }
  size_t lds_bytes() const { return gfx950() ? 160 * 1024 : 64 * 1024; }
};

// Read once from the environment: "arch=gfx950,devices=4,streams=random,seed=7". An unknown name or
// value ends the process: a test that asks for a check must not run without it.
const Settings& settings();

}  // namespace hip
