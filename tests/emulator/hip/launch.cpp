// SPDX-License-Identifier: Apache-2.0
// HIP's kernel launches, and the memory that a launch is confined to.
#include "launch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"
#include "module.h"
#include "settings.h"
#include "stream.h"

namespace hip {
namespace {

thread_local std::vector<Extent> extents_of_next_launch;

struct CallConfiguration {
  dim3 grid, block;
  size_t dynamic_lds;
  hipStream_t stream;
};
thread_local std::vector<CallConfiguration> call_configurations;

bool is_empty(dim3 size) { return size.x == 0 || size.y == 0 || size.z == 0; }

std::vector<uint8_t> pack(const Kernel& kernel, void** params) {
  std::vector<uint8_t> block(kernel.info.explicit_bytes);
  for (size_t i = 0; i < kernel.arguments.size(); ++i) {
    const Kernel::Argument& argument = kernel.arguments[i];
    std::memcpy(block.data() + argument.offset, params[i], argument.size);
  }
  return block;
}

std::vector<uint8_t> copy_extra(void** extra) {
  const uint8_t* start = nullptr;
  size_t bytes = 0;
  for (; *extra != HIP_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == HIP_LAUNCH_PARAM_BUFFER_POINTER) start = static_cast<uint8_t*>(extra[1]);
    if (*extra == HIP_LAUNCH_PARAM_BUFFER_SIZE) bytes = *static_cast<size_t*>(extra[1]);
  }
  return {start, start + bytes};
}

hipError_t launch(const void* function, dim3 grid, dim3 block, size_t dynamic_lds,
                  hipStream_t stream, void** params, void** extra) {
  Launch made;
  if (const hipError_t error = make_launch(function, grid, block,
                                           static_cast<uint32_t>(dynamic_lds), params, extra,
                                           &made)) {
    return error;
  }
  return submit(stream, std::move(made));
}

}  // namespace

hipError_t make_launch(const void* handle, dim3 grid, dim3 block, uint32_t dynamic_lds,
                       void** params, void** extra, Launch* launch) {
  std::vector<Extent> extents = std::exchange(extents_of_next_launch, {});
  const Function function = find_function(handle);
  if (!function.code) return fail(hipErrorInvalidDeviceFunction, "launch of an unknown kernel");
  const Kernel& kernel = *function.kernel;
  if (is_empty(grid) || is_empty(block)) {
    return fail(hipErrorInvalidConfiguration, "empty launch of " + kernel.name);
  }
  std::vector<uint8_t> arguments;
  if (extra) {
    arguments = copy_extra(extra);
  } else if (params) {
    arguments = pack(kernel, params);
  }
  *launch = {function.code, &kernel,     grid, block, dynamic_lds, std::move(arguments),
             std::move(extents)};
  return hipSuccess;
}

}  // namespace hip

using namespace hip;

// Confines this thread's next launch, direct, captured or made a graph node, to the extents declared
// since the last one: besides them it may touch its code object and its arguments. `access`: 1 read,
// 2 write, 3 both. A null `start` forgets what was declared. Real HIP has no such function.
HIP_API void jax_mla_debug_extents(const void* start, size_t bytes, const char* name, int access) {
  if (start) {
    extents_of_next_launch.push_back({start, bytes, name, access});
  } else {
    extents_of_next_launch.clear();
  }
}

HIP_API hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned grid_x, unsigned grid_y,
                                         unsigned grid_z, unsigned block_x, unsigned block_y,
                                         unsigned block_z, unsigned dynamic_lds,
                                         hipStream_t stream, void** params, void** extra) {
  return launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_lds,
                stream, params, extra);
}
HIP_API hipError_t hipLaunchKernel(const void* function, dim3 grid, dim3 block, void** params,
                                   size_t dynamic_lds, hipStream_t stream) {
  return launch(function, grid, block, dynamic_lds, stream, params, nullptr);
}
// Workgroups do not all run at once, so a kernel that waits for all of them would never end.
HIP_API hipError_t hipLaunchCooperativeKernel(const void*, dim3, dim3, void**, unsigned,
                                              hipStream_t) {
  return fail(hipErrorNotSupported, "cooperative launches are not emulated");
}

HIP_API hipError_t __hipPushCallConfiguration(dim3 grid, dim3 block, size_t dynamic_lds,
                                              hipStream_t stream) {
  call_configurations.push_back({grid, block, dynamic_lds, stream});
  return hipSuccess;
}
HIP_API hipError_t __hipPopCallConfiguration(dim3* grid, dim3* block, size_t* dynamic_lds,
                                             hipStream_t* stream) {
  if (call_configurations.empty()) return fail(hipErrorInvalidConfiguration);
  const CallConfiguration last = call_configurations.back();
  call_configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *dynamic_lds = last.dynamic_lds;
  *stream = last.stream;
  return hipSuccess;
}

HIP_API hipError_t hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, hipFunction_t,
                                                                      int block, size_t) {
  *blocks = std::max(1, 2048 / std::max(1, block));
  return hipSuccess;
}
