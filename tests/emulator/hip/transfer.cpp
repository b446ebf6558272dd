// SPDX-License-Identifier: Apache-2.0
// HIP's copies and fills.
#include "error.h"
#include "memory.h"
#include "stream.h"

namespace hip {
namespace {

bool is_pageable(const void* address) { return !find_allocation(address); }

// Memory that HIP has not pinned is read or written before the call returns, as HIP does it.
hipError_t copy(void* to, const void* from, size_t bytes, hipStream_t stream) {
  const Copy task = {to, from, bytes};
  return is_pageable(to) || is_pageable(from) ? submit_and_wait(stream, task)
                                              : submit(stream, task);
}

hipError_t copy_and_wait(void* to, const void* from, size_t bytes, hipStream_t stream) {
  if (capturing_thread()) return fail(hipErrorStreamCaptureUnsupported);
  return submit_and_wait(stream, Copy{to, from, bytes});
}

hipMemsetParams row(void* start, unsigned value, unsigned element_size, size_t count) {
  return {start, element_size, /*height=*/1, /*pitch=*/0, value, count};
}

}  // namespace
}  // namespace hip

using namespace hip;

HIP_API hipError_t hipMemcpy(void* to, const void* from, size_t bytes, hipMemcpyKind) {
  return copy_and_wait(to, from, bytes, nullptr);
}
HIP_API hipError_t hipMemcpyWithStream(void* to, const void* from, size_t bytes, hipMemcpyKind,
                                       hipStream_t stream) {
  return copy_and_wait(to, from, bytes, stream);
}
HIP_API hipError_t hipMemcpyHtoD(hipDeviceptr_t to, const void* from, size_t bytes) {
  return copy_and_wait(to, from, bytes, nullptr);
}
HIP_API hipError_t hipMemcpyDtoH(void* to, hipDeviceptr_t from, size_t bytes) {
  return copy_and_wait(to, from, bytes, nullptr);
}
HIP_API hipError_t hipMemcpyDtoD(hipDeviceptr_t to, hipDeviceptr_t from, size_t bytes) {
  return copy_and_wait(to, from, bytes, nullptr);
}

HIP_API hipError_t hipMemcpyAsync(void* to, const void* from, size_t bytes, hipMemcpyKind,
                                  hipStream_t stream) {
  return copy(to, from, bytes, stream);
}
HIP_API hipError_t hipMemcpyHtoDAsync(hipDeviceptr_t to, const void* from, size_t bytes,
                                      hipStream_t stream) {
  return copy(to, from, bytes, stream);
}
HIP_API hipError_t hipMemcpyDtoHAsync(void* to, hipDeviceptr_t from, size_t bytes,
                                      hipStream_t stream) {
  return copy(to, from, bytes, stream);
}
HIP_API hipError_t hipMemcpyDtoDAsync(hipDeviceptr_t to, hipDeviceptr_t from, size_t bytes,
                                      hipStream_t stream) {
  return copy(to, from, bytes, stream);
}

HIP_API hipError_t hipMemset(void* start, int value, size_t bytes) {
  return submit(nullptr, row(start, static_cast<unsigned>(value), 1, bytes));
}
HIP_API hipError_t hipMemsetAsync(void* start, int value, size_t bytes, hipStream_t stream) {
  return submit(stream, row(start, static_cast<unsigned>(value), 1, bytes));
}
HIP_API hipError_t hipMemsetD8Async(hipDeviceptr_t start, unsigned char value, size_t count,
                                    hipStream_t stream) {
  return submit(stream, row(start, value, 1, count));
}
HIP_API hipError_t hipMemsetD16Async(hipDeviceptr_t start, unsigned short value, size_t count,
                                     hipStream_t stream) {
  return submit(stream, row(start, value, 2, count));
}
HIP_API hipError_t hipMemsetD32Async(hipDeviceptr_t start, int value, size_t count,
                                     hipStream_t stream) {
  return submit(stream, row(start, static_cast<unsigned>(value), 4, count));
}
