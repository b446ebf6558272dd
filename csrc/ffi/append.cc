// SPDX-License-Identifier: Apache-2.0
#include "ffi/handlers.h"

#include <cstdint>
#include <cstring>

#include "ffi/error.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

// Rows [batch, q_len, width] to the end of each sequence of a paged pool, which is the result.
// XLA's CPU backend would widen a bfloat16 pool to float32, all of it, around a scatter.
ffi::Error Append(ffi::AnyBuffer kv_pages, ffi::AnyBuffer rows, ffi::BufferR1<ffi::S32> lengths,
                  ffi::BufferR2<ffi::S32> page_indices, ffi::Result<ffi::AnyBuffer> updated) {
  const auto pool = kv_pages.dimensions();
  const auto added = rows.dimensions();
  if (pool.size() != 3 || added.size() != 3 || pool[2] != added[2] ||
      kv_pages.element_type() != rows.element_type() ||
      added[0] != static_cast<int64_t>(lengths.element_count()) ||
      added[0] != page_indices.dimensions()[0]) {
    return InvalidArgument("jax_mla append: operands do not fit together");
  }
  if (kv_pages.untyped_data() != updated->untyped_data()) {
    return InvalidArgument("jax_mla append: expected kv_pages and the result in the same memory");
  }
  const int64_t pages = pool[0], page_size = pool[1], batch = added[0], q_len = added[1];
  const int64_t pages_per_seq = page_indices.dimensions()[1];
  const size_t row_bytes = pool[2] * ffi::ByteWidth(rows.element_type());
  auto* target = static_cast<uint8_t*>(updated->untyped_data());
  auto* source = static_cast<const uint8_t*>(rows.untyped_data());

  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    for (int64_t token = 0; token < q_len; ++token, source += row_bytes) {
      const int64_t position = int64_t{lengths.typed_data()[sequence]} - q_len + token;
      if (position < 0 || position >= pages_per_seq * page_size) continue;
      const int64_t page =
          page_indices.typed_data()[sequence * pages_per_seq + position / page_size];
      if (page < 0 || page >= pages) continue;
      std::memcpy(target + (page * page_size + position % page_size) * row_bytes, source,
                  row_bytes);
    }
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kAppend, Append,
                       ffi::Ffi::Bind()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::BufferR1<ffi::S32>>()
                           .Arg<ffi::BufferR2<ffi::S32>>()
                           .Ret<ffi::AnyBuffer>());

}  // namespace

XLA_FFI_Handler* AppendHandler() { return kAppend; }

}  // namespace jax_mla
