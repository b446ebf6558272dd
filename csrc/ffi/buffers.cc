// SPDX-License-Identifier: Apache-2.0
#include "ffi/buffers.h"

namespace jax_mla {
namespace {

std::string Text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAny ? "any" : std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace

xla::ffi::Error CheckBuffer(const char* op, const char* name, const xla::ffi::AnyBuffer& buffer,
                            const Shape& expected, std::optional<xla::ffi::DataType> dtype) {
  const auto dims = buffer.dimensions();
  const Shape got(dims.begin(), dims.end());
  bool fits = got.size() == expected.size();
  for (size_t i = 0; fits && i < got.size(); ++i) {
    fits = expected[i] == kAny || expected[i] == got[i];
  }
  if (!fits) {
    return InvalidArgument("jax_mla ", op, ": ", name, ": expected shape ", Text(expected),
                           ", got ", Text(got));
  }
  if (dtype && buffer.element_type() != *dtype) {
    return InvalidArgument("jax_mla ", op, ": ", name, ": expected dtype ", *dtype, ", got ",
                           buffer.element_type());
  }
  return xla::ffi::Error::Success();
}

}  // namespace jax_mla
