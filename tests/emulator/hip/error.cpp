// SPDX-License-Identifier: Apache-2.0
// HIP's error functions.
#include "error.h"

#include <cstdio>
#include <mutex>
#include <utility>

namespace hip {
namespace {

thread_local hipError_t last_error = hipSuccess;
std::mutex reports_mutex;
std::string reports;

}  // namespace

hipError_t fail(hipError_t error) {
  if (error != hipSuccess) last_error = error;
  return error;
}

hipError_t fail(hipError_t error, const std::string& reason) {
  std::fprintf(stderr, "emulated ROCm: %s\n", reason.c_str());
  std::lock_guard lock(reports_mutex);
  reports += reason + "\n";
  return fail(error);
}

std::string take_reports() {
  std::lock_guard lock(reports_mutex);
  return std::exchange(reports, {});
}

}  // namespace hip

HIP_API hipError_t hipGetLastError() { return std::exchange(hip::last_error, hipSuccess); }
HIP_API hipError_t hipPeekAtLastError() { return hip::last_error; }

HIP_API const char* hipGetErrorName(hipError_t error) {
#define NAME(error) \
  case error:       \
    return #error
  switch (error) {
    NAME(hipSuccess);
    NAME(hipErrorInvalidValue);
    NAME(hipErrorOutOfMemory);
    NAME(hipErrorInvalidConfiguration);
    NAME(hipErrorInvalidSymbol);
    NAME(hipErrorInvalidDeviceFunction);
    NAME(hipErrorInvalidDevice);
    NAME(hipErrorInvalidImage);
    NAME(hipErrorNoBinaryForGpu);
    NAME(hipErrorFileNotFound);
    NAME(hipErrorInvalidHandle);
    NAME(hipErrorIllegalState);
    NAME(hipErrorNotFound);
    NAME(hipErrorNotReady);
    NAME(hipErrorHostMemoryNotRegistered);
    NAME(hipErrorLaunchFailure);
    NAME(hipErrorNotSupported);
    NAME(hipErrorStreamCaptureUnsupported);
    NAME(hipErrorStreamCaptureInvalidated);
    NAME(hipErrorStreamCaptureUnmatched);
    NAME(hipErrorStreamCaptureUnjoined);
    NAME(hipErrorStreamCaptureIsolation);
  }
#undef NAME
  return "hipErrorUnknown";
}

HIP_API const char* hipGetErrorString(hipError_t error) { return hipGetErrorName(error); }
HIP_API hipError_t hipDrvGetErrorName(hipError_t error, const char** text) {
  *text = hipGetErrorName(error);
  return hipSuccess;
}
HIP_API hipError_t hipDrvGetErrorString(hipError_t error, const char** text) {
  return hipDrvGetErrorName(error, text);
}
