// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace jax_mla {

// A shared library that is in the process, or that can be brought in; never closed.
class Library {
 public:
  // The library whose file name begins with `prefix`, if it is mapped; else the first of `names`
  // that the loader finds. A second copy of one that is there is never loaded. Without either,
  // handle is null and `reason` says why.
  Library(const std::string& prefix, const std::vector<const char*>& names);

  explicit operator bool() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }
  const std::string& reason() const { return reason_; }

  // Points `function` to a symbol. One that is not there is null and is named in `missing`.
  template <typename Pointer>
  void Get(const char* symbol, Pointer** function) {
    *function = reinterpret_cast<Pointer*>(Symbol(symbol));
    if (*function == nullptr) missing_ += std::string(missing_.empty() ? "" : ", ") + symbol;
  }
  // The same where it may be missing.
  template <typename Pointer>
  void GetOptional(const char* symbol, Pointer** function) const {
    *function = reinterpret_cast<Pointer*>(Symbol(symbol));
  }
  const std::string& missing() const { return missing_; }

 private:
  void* Symbol(const char* name) const;

  void* handle_ = nullptr;
  std::string path_, reason_, missing_;
};

}  // namespace jax_mla
