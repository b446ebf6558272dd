// SPDX-License-Identifier: Apache-2.0
#include "aiter/code_objects.h"

#include <functional>
#include <map>
#include <memory>
#include <mutex>

namespace jax_mla::aiter {
namespace {

// Holds what the pointers of its CodeObject point to.
struct Stored {
  std::string sha256, file, arch, symbol, content;
  CodeObject object;
};

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Stored>, std::less<>> objects;
};

// Never destroyed: modules that were loaded from it live as long as the process.
Registry& GetRegistry() {
  static Registry& registry = *new Registry;
  return registry;
}

}  // namespace

void AddCodeObject(const std::string& sha256, const std::string& file, const std::string& arch,
                   const std::string& symbol, std::string_view content) {
  auto added = std::make_unique<Stored>(
      Stored{sha256, file, arch, symbol, std::string(content), {}});
  const Stored& s = *added;
  added->object = {{s.file.c_str(), s.arch.c_str(), s.sha256.c_str(),
                    reinterpret_cast<const unsigned char*>(s.content.data()), s.content.size()},
                   s.symbol.c_str()};
  std::lock_guard lock(GetRegistry().mutex);
  GetRegistry().objects.try_emplace(sha256, std::move(added));
}

const CodeObject* FindCodeObject(std::string_view sha256) {
  std::lock_guard lock(GetRegistry().mutex);
  const auto found = GetRegistry().objects.find(sha256);
  return found == GetRegistry().objects.end() ? nullptr : &found->second->object;
}

}  // namespace jax_mla::aiter
