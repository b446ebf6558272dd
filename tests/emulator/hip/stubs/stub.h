// SPDX-License-Identifier: Apache-2.0
// What every stub library is made of: functions that say their name once and fail.
#pragma once

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <set>

#define STUB extern "C" __attribute__((visibility("default")))

static inline long refuse(const char* function, long code) {
  static std::mutex mutex;
  static std::set<const char*> said;
  std::lock_guard lock(mutex);
  if (said.insert(function).second) {
    std::fprintf(stderr, "emulated ROCm: %s is not emulated\n", function);
  }
  return code;
}
