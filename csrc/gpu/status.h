// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <string>
#include <utility>

namespace jax_mla {

// Success, or the reason why not. What it means to XLA is for the handlers to say.
class [[nodiscard]] Status {
 public:
  Status() = default;

  // A failure whose reason is the parts, put together.
  template <typename... Parts>
  static Status Failure(const Parts&... parts) {
    std::ostringstream reason;
    (reason << ... << parts);
    return Status(reason.str());
  }

  bool ok() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }

 private:
  explicit Status(std::string reason) : reason_(std::move(reason)) {}
  std::string reason_;
};

}  // namespace jax_mla
