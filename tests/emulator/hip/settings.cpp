// SPDX-License-Identifier: Apache-2.0
// Reads JAX_MLA_EMULATOR.
#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace hip {
namespace {

[[noreturn]] void refuse(const std::string& entry) {
  std::fprintf(stderr, "emulated ROCm: JAX_MLA_EMULATOR has no meaning for '%s'\n", entry.c_str());
  std::exit(1);
}

uint64_t number(const std::string& entry, const std::string& value) {
  char* end = nullptr;
  const uint64_t result = std::strtoull(value.c_str(), &end, 10);
  if (value.empty() || *end) refuse(entry);
  return result;
}

void set(Settings& settings, const std::string& entry) {
  const size_t equals = entry.find('=');
  const std::string name = entry.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : entry.substr(equals + 1);
  if (name == "arch" && (value == "gfx942" || value == "gfx950")) {
    settings.arch = value;
  } else if (name == "streams" && (value == "ordered" || value == "random")) {
    settings.random_streams = value == "random";
  } else if (name == "devices") {
    settings.devices = static_cast<int>(number(entry, value));
  } else if (name == "memory_mib") {
    settings.memory = number(entry, value) << 20;
  } else if (name == "threads") {
    settings.threads = static_cast<int>(number(entry, value));
  } else if (name == "waits") {
    settings.waits = static_cast<int>(number(entry, value));
  } else if (name == "uninitialised") {
    settings.uninitialised = number(entry, value) != 0;
  } else if (name == "seed") {
    settings.seed = number(entry, value);
  } else {
    refuse(entry);
  }
}

Settings read() {
  Settings settings;
  const char* text = std::getenv("JAX_MLA_EMULATOR");
  std::istringstream entries(text ? text : "");
  for (std::string entry; std::getline(entries, entry, ',');) set(settings, entry);
  return settings;
}

}  // namespace

const Settings& settings() {
  static const Settings once = read();
  return once;
}

}  // namespace hip
