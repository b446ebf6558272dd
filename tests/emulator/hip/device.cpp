// SPDX-License-Identifier: Apache-2.0
// HIP's device functions: the emulated GPU's properties, the current device, and contexts.
#include "device.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "abi_device.h"
#include "error.h"
#include "settings.h"

namespace hip {
namespace {

thread_local int device_of_thread = 0;
thread_local std::vector<int> pushed_devices;
constexpr int kVersion = 70051831;  // HIP 7.0, as the ROCm that the plugin is built for

// A context is nothing but its device, numbered from 1.
hipCtx_t context_of(int device) { return reinterpret_cast<hipCtx_t>(intptr_t{device} + 1); }
int device_of(hipCtx_t context) {
  return static_cast<int>(reinterpret_cast<intptr_t>(context)) - 1;
}

template <size_t n>
void put(char (&field)[n], const std::string& text) {
  std::snprintf(field, n, "%s", text.c_str());
}

hipDeviceProp_tR0600 properties_of(int device) {
  hipDeviceProp_tR0600 p = {};
  put(p.name, settings().name());
  put(p.gcnArchName, settings().target());
  put(p.uuid, "emulated-" + std::to_string(device));
  p.totalGlobalMem = settings().memory;
  p.sharedMemPerBlock = p.sharedMemPerBlockOptin = settings().lds_bytes();
  p.sharedMemPerMultiprocessor = p.maxSharedMemoryPerMultiProcessor = settings().lds_bytes();
  p.regsPerBlock = 65536;
  p.regsPerMultiprocessor = 2 * 65536;
  p.warpSize = 64;
  p.memPitch = p.totalConstMem = 0x7fffffff;
  p.maxThreadsPerBlock = 1024;
  std::fill_n(p.maxThreadsDim, 3, 1024);
  p.maxGridSize[0] = 0x7fffffff;
  p.maxGridSize[1] = p.maxGridSize[2] = 65536;
  p.maxThreadsPerMultiProcessor = 2048;
  p.maxBlocksPerMultiProcessor = 2;
  p.major = 9;
  p.minor = settings().gfx950() ? 5 : 4;
  p.multiProcessorCount = settings().compute_units();
  p.clockRate = 2100000;  // kHz
  p.memoryClockRate = 1300000;
  p.memoryBusWidth = 8192;
  p.l2CacheSize = 4 << 20;
  p.clockInstructionRate = 100000;
  p.textureAlignment = 256;
  p.pciBusID = device + 1;
  p.canMapHostMemory = p.concurrentKernels = p.ECCEnabled = p.unifiedAddressing = 1;
  p.managedMemory = p.cooperativeLaunch = p.hostRegisterSupported = p.isLargeBar = 1;
  p.streamPrioritiesSupported = p.asicRevision = 1;
  p.asyncEngineCount = 2;
  p.arch.hasGlobalInt32Atomics = p.arch.hasGlobalInt64Atomics = p.arch.hasFloatAtomicAdd = 1;
  p.arch.hasSharedInt32Atomics = p.arch.hasSharedInt64Atomics = p.arch.hasDoubles = 1;
  p.arch.hasGlobalFloatAtomicExch = p.arch.hasSharedFloatAtomicExch = p.arch.has3dGrid = 1;
  p.arch.hasWarpVote = p.arch.hasWarpBallot = p.arch.hasWarpShuffle = 1;
  p.arch.hasThreadFenceSystem = 1;
  return p;
}

int attribute_of(const hipDeviceProp_tR0600& p, hipDeviceAttribute_t attribute) {
  switch (attribute) {
    case hipDeviceAttributeEccEnabled: return p.ECCEnabled;
    case hipDeviceAttributeCanMapHostMemory: return p.canMapHostMemory;
    case hipDeviceAttributeClockRate: return p.clockRate;
    case hipDeviceAttributeConcurrentKernels: return p.concurrentKernels;
    case hipDeviceAttributeCooperativeLaunch: return p.cooperativeLaunch;
    case hipDeviceAttributeL2CacheSize: return p.l2CacheSize;
    case hipDeviceAttributeComputeCapabilityMajor: return p.major;
    case hipDeviceAttributeComputeCapabilityMinor: return p.minor;
    case hipDeviceAttributeManagedMemory: return p.managedMemory;
    case hipDeviceAttributeMaxBlocksPerMultiProcessor: return p.maxBlocksPerMultiProcessor;
    case hipDeviceAttributeMaxBlockDimX: return p.maxThreadsDim[0];
    case hipDeviceAttributeMaxBlockDimY: return p.maxThreadsDim[1];
    case hipDeviceAttributeMaxBlockDimZ: return p.maxThreadsDim[2];
    case hipDeviceAttributeMaxGridDimX: return p.maxGridSize[0];
    case hipDeviceAttributeMaxGridDimY: return p.maxGridSize[1];
    case hipDeviceAttributeMaxGridDimZ: return p.maxGridSize[2];
    case hipDeviceAttributeMaxThreadsPerBlock: return p.maxThreadsPerBlock;
    case hipDeviceAttributeMaxThreadsPerMultiProcessor: return p.maxThreadsPerMultiProcessor;
    case hipDeviceAttributeMemoryBusWidth: return p.memoryBusWidth;
    case hipDeviceAttributeMemoryClockRate: return p.memoryClockRate;
    case hipDeviceAttributeMultiprocessorCount:
    case hipDeviceAttributePhysicalMultiProcessorCount: return p.multiProcessorCount;
    case hipDeviceAttributePciBusId: return p.pciBusID;
    case hipDeviceAttributeMaxRegistersPerBlock: return p.regsPerBlock;
    case hipDeviceAttributeMaxRegistersPerMultiprocessor: return p.regsPerMultiprocessor;
    case hipDeviceAttributeMaxSharedMemoryPerBlock:
    case hipDeviceAttributeSharedMemPerBlockOptin:
    case hipDeviceAttributeSharedMemPerMultiprocessor:
    case hipDeviceAttributeMaxSharedMemoryPerMultiprocessor:
      return static_cast<int>(p.sharedMemPerBlock);
    case hipDeviceAttributeStreamPrioritiesSupported: return p.streamPrioritiesSupported;
    case hipDeviceAttributeTotalGlobalMem:
      return static_cast<int>(std::min<size_t>(p.totalGlobalMem, 0x7fffffff));
    case hipDeviceAttributeUnifiedAddressing: return p.unifiedAddressing;
    case hipDeviceAttributeWarpSize: return p.warpSize;
    case hipDeviceAttributeHostRegisterSupported: return p.hostRegisterSupported;
    case hipDeviceAttributeClockInstructionRate:
    case hipDeviceAttributeWallClockRate: return p.clockInstructionRate;
    case hipDeviceAttributeNumberOfXccs: return 8;
  }
  return 0;  // whatever else there is, this device does not have it
}

hipError_t check_device(int device) {
  return is_device(device) ? hipSuccess : fail(hipErrorInvalidDevice);
}

}  // namespace

int current_device() { return device_of_thread; }
bool is_device(int device) { return device >= 0 && device < settings().devices; }

}  // namespace hip

using namespace hip;

HIP_API hipError_t hipInit(unsigned) { return hipSuccess; }
HIP_API hipError_t hipDriverGetVersion(int* version) {
  *version = kVersion;
  return hipSuccess;
}
HIP_API hipError_t hipRuntimeGetVersion(int* version) { return hipDriverGetVersion(version); }

HIP_API hipError_t hipGetDeviceCount(int* count) {
  *count = settings().devices;
  return hipSuccess;
}
HIP_API hipError_t hipSetDevice(int device) {
  if (!is_device(device)) return fail(hipErrorInvalidDevice);
  device_of_thread = device;
  return hipSuccess;
}
HIP_API hipError_t hipGetDevice(int* device) {
  *device = device_of_thread;
  return hipSuccess;
}
HIP_API hipError_t hipDeviceGet(hipDevice_t* device, int ordinal) {
  *device = ordinal;
  return check_device(ordinal);
}
HIP_API hipError_t hipDeviceGetName(char* text, int size, hipDevice_t device) {
  std::snprintf(text, static_cast<size_t>(size), "%s", settings().name());
  return check_device(device);
}
HIP_API hipError_t hipDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, static_cast<size_t>(size), "0000:%02x:00.0", device + 1);
  return check_device(device);
}
HIP_API hipError_t hipDeviceTotalMem(size_t* bytes, hipDevice_t device) {
  *bytes = settings().memory;
  return check_device(device);
}
HIP_API hipError_t hipGetDevicePropertiesR0600(hipDeviceProp_tR0600* properties, int device) {
  if (!is_device(device)) return fail(hipErrorInvalidDevice);
  *properties = properties_of(device);
  return hipSuccess;
}
HIP_API hipError_t hipDeviceGetAttribute(int* value, hipDeviceAttribute_t attribute, int device) {
  if (!is_device(device)) return fail(hipErrorInvalidDevice);
  *value = attribute_of(properties_of(device), attribute);
  return hipSuccess;
}

// Every device reads every other's memory: it is all host memory.
HIP_API hipError_t hipDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer;
  return check_device(device);
}
HIP_API hipError_t hipDeviceEnablePeerAccess(int peer, unsigned) { return check_device(peer); }

HIP_API hipError_t hipDevicePrimaryCtxRetain(hipCtx_t* context, hipDevice_t device) {
  *context = context_of(device);
  return check_device(device);
}
HIP_API hipError_t hipCtxPushCurrent(hipCtx_t context) {
  if (!is_device(device_of(context))) return fail(hipErrorInvalidDevice);
  pushed_devices.push_back(std::exchange(device_of_thread, device_of(context)));
  return hipSuccess;
}
HIP_API hipError_t hipCtxPopCurrent(hipCtx_t* context) {
  if (context) *context = context_of(device_of_thread);
  if (pushed_devices.empty()) return hipSuccess;
  device_of_thread = pushed_devices.back();
  pushed_devices.pop_back();
  return hipSuccess;
}
HIP_API hipError_t hipCtxGetDevice(hipDevice_t* device) { return hipGetDevice(device); }
