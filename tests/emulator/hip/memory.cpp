// SPDX-License-Identifier: Apache-2.0
// HIP's allocation functions. Device memory is host memory at the same address.
#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

#include "device.h"
#include "dispatch.h"
#include "error.h"
#include "settings.h"
#include "stream.h"

namespace hip {
namespace {

std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;  // by start; freed ones stay, as poison
std::vector<size_t> bytes_in_use(settings().devices);

constexpr size_t kPage = 4096;
constexpr size_t kPoison = size_t{32} << 20;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// A file of ones: as a float or a bfloat16 each is NaN, as a pointer or an index it leads nowhere.
int poison_file() {
  static const int file = [] {
    const int made = memfd_create("poison", MFD_CLOEXEC);
    const std::vector<uint8_t> ones(kPoison, 0xff);
    return write(made, ones.data(), ones.size()) == static_cast<ssize_t>(kPoison) ? made : -1;
  }();
  return file;
}

// New memory reads as poison and costs nothing until it is written: all of it shares one file's pages.
void* map_poisoned(size_t bytes) {
  auto* start = static_cast<uint8_t*>(
      mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (start == MAP_FAILED) return nullptr;
  for (size_t at = 0; at < bytes; at += kPoison) {
    if (mmap(start + at, std::min(kPoison, bytes - at), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, poison_file(), 0) == MAP_FAILED) {
      munmap(start, bytes);
      return nullptr;
    }
  }
  return start;
}

const char* kind_of(const Allocation& allocation) {
  switch (allocation.type) {
    case hipMemoryTypeDevice: return "device memory";
    case hipMemoryTypeManaged: return "managed memory";
    default: return allocation.owned ? "pinned host memory" : "registered host memory";
  }
}

std::string name_of(const Allocation& allocation) {
  return std::to_string(allocation.bytes) + " bytes of " + kind_of(allocation) + " (device " +
         std::to_string(allocation.device) + ")";
}

void enter(const Allocation& allocation) {
  allocations[allocation.start] = allocation;
  void* const start = reinterpret_cast<void*>(allocation.start);
  add_memory(start, allocation.bytes, name_of(allocation));
  // What the host writes itself is not seen, so nothing of its memory counts as never written.
  if (allocation.type != hipMemoryTypeDevice) mark_written(start, allocation.bytes);
}

hipError_t allocate(void** pointer, size_t bytes, hipMemoryType type, unsigned flags = 0) {
  *pointer = nullptr;
  if (bytes == 0) return hipSuccess;
  const size_t size = whole_pages(bytes);
  const int device = current_device();
  std::lock_guard lock(mutex);
  const bool on_device = type == hipMemoryTypeDevice;
  if (on_device && bytes_in_use[device] + size > settings().memory) {
    return fail(hipErrorOutOfMemory);
  }
  *pointer = map_poisoned(size);
  if (!*pointer) return fail(hipErrorOutOfMemory);
  if (on_device) bytes_in_use[device] += size;
  enter({reinterpret_cast<uintptr_t>(*pointer), bytes, type, device, flags});
  return hipSuccess;
}

// The addresses stay reserved, so that a stale pointer faults and is named instead of hitting what
// came after.
hipError_t release(void* pointer) {
  if (!pointer) return hipSuccess;
  wait_for_all_streams();
  std::lock_guard lock(mutex);
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == allocations.end() || !found->second.owned || found->second.freed) {
    return fail(hipErrorInvalidValue, "free of a pointer that no allocation begins at");
  }
  Allocation& allocation = found->second;
  const size_t size = whole_pages(allocation.bytes);
  if (allocation.type == hipMemoryTypeDevice) bytes_in_use[allocation.device] -= size;
  remove_memory(pointer);
  mmap(pointer, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  allocation.freed = true;
  return hipSuccess;
}

const Allocation* find(uintptr_t address) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  const Allocation& before = std::prev(after)->second;
  return before.holds(address) ? &before : nullptr;
}

}  // namespace

std::optional<Allocation> find_allocation(const void* address) {
  std::lock_guard lock(mutex);
  const Allocation* found = find(reinterpret_cast<uintptr_t>(address));
  return found ? std::optional(*found) : std::nullopt;
}

std::string refusal(const void* address, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const std::optional<Allocation> found = find_allocation(address);
  if (bytes == 0 || (!found && at != 0)) return {};
  if (at == 0) return "a null pointer";
  if (found->freed) return "freed memory, once " + name_of(*found);
  if (at - found->start + bytes <= found->bytes) return {};
  return std::to_string(bytes) + " bytes at offset " + std::to_string(at - found->start) + " of " +
         name_of(*found);
}

}  // namespace hip

using namespace hip;

HIP_API hipError_t hipMalloc(void** pointer, size_t bytes) {
  if (capturing_thread()) return fail(hipErrorStreamCaptureUnsupported);
  return allocate(pointer, bytes, hipMemoryTypeDevice);
}
HIP_API hipError_t hipMallocManaged(void** pointer, size_t bytes, unsigned flags) {
  return allocate(pointer, bytes, hipMemoryTypeManaged, flags);
}
HIP_API hipError_t hipHostMalloc(void** pointer, size_t bytes, unsigned flags) {
  return allocate(pointer, bytes, hipMemoryTypeHost, flags);
}
HIP_API hipError_t hipFree(void* pointer) {
  if (capturing_thread()) return fail(hipErrorStreamCaptureUnsupported);
  return release(pointer);
}
HIP_API hipError_t hipHostFree(void* pointer) { return release(pointer); }

HIP_API hipError_t hipHostRegister(void* pointer, size_t bytes, unsigned flags) {
  std::lock_guard lock(mutex);
  enter({reinterpret_cast<uintptr_t>(pointer), bytes, hipMemoryTypeHost, current_device(), flags,
         /*owned=*/false});
  return hipSuccess;
}
HIP_API hipError_t hipHostUnregister(void* pointer) {
  wait_for_all_streams();
  std::lock_guard lock(mutex);
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == allocations.end() || found->second.owned) {
    return fail(hipErrorHostMemoryNotRegistered);
  }
  remove_memory(pointer);
  allocations.erase(found);
  return hipSuccess;
}
HIP_API hipError_t hipHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return hipSuccess;
}

HIP_API hipError_t hipMemGetInfo(size_t* free, size_t* total) {
  std::lock_guard lock(mutex);
  if (free) *free = settings().memory - bytes_in_use[current_device()];
  if (total) *total = settings().memory;
  return hipSuccess;
}
HIP_API hipError_t hipMemGetAddressRange(hipDeviceptr_t* base, size_t* bytes, hipDeviceptr_t at) {
  const std::optional<Allocation> found = find_allocation(at);
  if (!found || found->freed) return fail(hipErrorNotFound);
  if (base) *base = reinterpret_cast<void*>(found->start);
  if (bytes) *bytes = found->bytes;
  return hipSuccess;
}

HIP_API hipError_t hipPointerGetAttributes(hipPointerAttribute_t* out, const void* pointer) {
  const std::optional<Allocation> found = find_allocation(pointer);
  *out = {hipMemoryTypeUnregistered, -2, nullptr, nullptr, 0, 0};
  if (!found || found->freed) return hipSuccess;
  void* address = const_cast<void*>(pointer);
  void* host = found->type == hipMemoryTypeDevice ? nullptr : address;
  *out = {found->type, found->device,
          address,     host,
          found->type == hipMemoryTypeManaged, found->flags};
  return hipSuccess;
}
HIP_API hipError_t hipPointerGetAttribute(void* out, hipPointer_attribute attribute,
                                          hipDeviceptr_t pointer) {
  const std::optional<Allocation> found = find_allocation(pointer);
  if (!found || found->freed) return fail(hipErrorInvalidValue);
  switch (attribute) {
    case HIP_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<intptr_t*>(out) = found->device + 1;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<int*>(out) = found->type;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case HIP_POINTER_ATTRIBUTE_HOST_POINTER:
      *static_cast<void**>(out) = pointer;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(out) = found->device;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<bool*>(out) = found->type == hipMemoryTypeManaged;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case HIP_POINTER_ATTRIBUTE_BUFFER_ID:
      *static_cast<uintptr_t*>(out) = found->start;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<size_t*>(out) = found->bytes;
      return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_MAPPED:
      *static_cast<bool*>(out) = true;
      return hipSuccess;
  }
  return fail(hipErrorNotSupported);
}
