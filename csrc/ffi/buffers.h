// SPDX-License-Identifier: Apache-2.0
// A custom call's operands and results, each checked by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ffi/error.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

using Shape = std::vector<int64_t>;

constexpr int64_t kAny = -1;  // a dimension that the buffer itself decides

// Checks shape and dtype of a buffer; without `dtype` any will do.
xla::ffi::Error CheckBuffer(const char* op, const char* name, const xla::ffi::AnyBuffer& buffer,
                            const Shape& expected, std::optional<xla::ffi::DataType> dtype);

// Hands out operands (RemainingArgs) or results (RemainingRets) in order.
template <typename Remaining>
class Buffers {
 public:
  Buffers(const char* op, Remaining buffers) : op_(op), buffers_(buffers) {}

  xla::ffi::Error Next(const char* name, const Shape& expected,
                       std::optional<xla::ffi::DataType> dtype,
                       std::optional<xla::ffi::AnyBuffer>& buffer) {
    if (next_ >= buffers_.size()) return InvalidArgument("jax_mla ", op_, ": ", name, ": missing");
    if constexpr (std::is_same_v<Remaining, xla::ffi::RemainingArgs>) {
      buffer = *buffers_.template get<xla::ffi::AnyBuffer>(next_++);
    } else {
      buffer = **buffers_.template get<xla::ffi::AnyBuffer>(next_++);
    }
    return CheckBuffer(op_, name, *buffer, expected, dtype);
  }

  xla::ffi::Error Done() const {
    if (next_ == buffers_.size()) return xla::ffi::Error::Success();
    const bool operands = std::is_same_v<Remaining, xla::ffi::RemainingArgs>;
    return InvalidArgument("jax_mla ", op_, ": expected ", next_,
                           operands ? " operands" : " results", ", got ", buffers_.size());
  }

  size_t left() const { return buffers_.size() - next_; }

 private:
  const char* op_;
  Remaining buffers_;
  size_t next_ = 0;
};

template <typename T>
T* Data(const std::optional<xla::ffi::AnyBuffer>& buffer) {
  return static_cast<T*>(buffer->untyped_data());
}

}  // namespace jax_mla
