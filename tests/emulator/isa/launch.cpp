// SPDX-License-Identifier: Apache-2.0
// A launch: limits, arguments, visible memory, host threads, totals.
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>

#include "error.h"
#include "workgroup.h"

namespace emu {
namespace {

constexpr uint32_t most_work_items = 1024, simds = 4, registers_per_simd_lane = 512;
constexpr uint32_t most_scratch = 128 * 1024;

uint32_t lds_limit(Arch arch) { return (arch == Arch::gfx950 ? 160 : 64) * 1024; }

void check_limits(const CodeObject &code, const Kernel &kernel, const emu_launch_config &config) {
  const uint64_t items = uint64_t{config.block[0]} * config.block[1] * config.block[2];
  const char *name = kernel.name.c_str();
  if (!items || items > most_work_items)
    throw Error(format("kernel %s: a workgroup of %llu work-items; the limit is %u", name,
                       static_cast<unsigned long long>(items), most_work_items));
  if (kernel.max_workgroup_size && items > kernel.max_workgroup_size)
    throw Error(format("kernel %s: a workgroup of %llu work-items; it was compiled for at most %u",
                       name, static_cast<unsigned long long>(items), kernel.max_workgroup_size));
  const uint64_t lds = uint64_t{kernel.static_lds} + config.dynamic_lds;
  if (lds > lds_limit(code.arch))
    throw Error(format("kernel %s: %llu bytes of LDS; %s has %u", name,
                       static_cast<unsigned long long>(lds), code.arch_name.c_str(),
                       lds_limit(code.arch)));
  const uint64_t waves_per_simd = (items + lanes * simds - 1) / (lanes * simds);
  if (waves_per_simd * kernel.allocated_registers() > registers_per_simd_lane)
    throw Error(format("kernel %s: %llu waves of %u registers do not fit a SIMD at once", name,
                       static_cast<unsigned long long>(waves_per_simd),
                       kernel.allocated_registers()));
  if (kernel.private_bytes > most_scratch)
    throw Error(format("kernel %s: %u bytes of scratch for each work-item; the limit is %u", name,
                       kernel.private_bytes, most_scratch));
  if (config.kernarg_bytes < kernel.explicit_bytes)
    throw Error(format("kernel %s: %zu bytes of arguments; it declares %u", name,
                       config.kernarg_bytes, kernel.explicit_bytes));
}

// Copies the arguments and fills in the hidden ones that the caller left out.
void set_arguments(Launch &launch, const emu_launch_config &config) {
  const Kernel &kernel = *launch.kernel;
  const size_t size = std::max<size_t>(kernel.kernarg_bytes, config.kernarg_bytes);
  launch.kernarg_bytes.assign(size + 64, 0);
  const auto start = reinterpret_cast<uint64_t>(launch.kernarg_bytes.data());
  launch.kernarg = (start + 63) & ~63ull;  // the segment is aligned
  auto *block = reinterpret_cast<uint8_t *>(launch.kernarg);
  if (config.kernarg_bytes) std::memcpy(block, config.kernarg, config.kernarg_bytes);
  const uint64_t dimensions = config.grid[2] * config.block[2] > 1   ? 3
                              : config.grid[1] * config.block[1] > 1 ? 2
                                                                     : 1;
  for (const Argument &argument : kernel.arguments) {
    if (argument.offset < config.kernarg_bytes || argument.offset + argument.size > size) continue;
    uint64_t value = 0;
    const int axis = argument.kind.empty() ? 0 : argument.kind.back() - 'x';
    if (argument.kind.starts_with("hidden_block_count_")) value = config.grid[axis];
    if (argument.kind.starts_with("hidden_group_size_")) value = config.block[axis];
    if (argument.kind == "hidden_grid_dims") value = dimensions;
    if (argument.kind == "hidden_dynamic_lds_size") value = config.dynamic_lds;
    if (argument.kind == "hidden_private_base") value = private_aperture >> 32;
    if (argument.kind == "hidden_shared_base") value = shared_aperture >> 32;
    std::memcpy(block + argument.offset, &value, std::min<size_t>(argument.size, sizeof value));
  }
}

// The AQL packet, which kernels of older code object versions read.
void set_packet(Launch &launch) {
  launch.packet_bytes.assign(128, 0);
  launch.packet = (reinterpret_cast<uint64_t>(launch.packet_bytes.data()) + 63) & ~63ull;
  auto *packet = reinterpret_cast<uint8_t *>(launch.packet);
  for (int axis = 0; axis < 3; axis++) {
    const uint16_t block = static_cast<uint16_t>(launch.block[axis]);
    const uint32_t items = launch.grid[axis] * launch.block[axis];
    std::memcpy(packet + 4 + 2 * axis, &block, sizeof block);
    std::memcpy(packet + 12 + 4 * axis, &items, sizeof items);
  }
  std::memcpy(packet + 24, &launch.kernel->private_bytes, 4);
  std::memcpy(packet + 28, &launch.lds_bytes, 4);
  std::memcpy(packet + 40, &launch.kernarg, 8);
}

void set_memory(Launch &launch, Context &context, const emu_launch_config &config) {
  if (config.extent_count) {
    for (size_t n = 0; n < config.extent_count; n++) {
      const emu_extent &extent = config.extents[n];
      if (!extent.bytes) continue;
      Allocation part = context.memory.part(reinterpret_cast<uint64_t>(extent.ptr), extent.bytes,
                                            extent.name ? extent.name : "");
      part.readable = extent.access & EMU_READ;
      part.writable = part.writable && extent.access & EMU_WRITE;
      launch.memory.add(std::move(part));
    }
  } else {
    context.memory.append_to(launch.memory);
  }
  auto add = [&](uint64_t begin, size_t size, const char *name, bool writable, bool counted) {
    Allocation allocation;
    allocation.begin = begin;
    allocation.end = begin + size;
    allocation.name = name;
    allocation.writable = writable;
    allocation.counted = counted;
    launch.memory.add(std::move(allocation));
    return launch.memory.allocations.back().get();
  };
  // To the end of a line of 64 bytes, as the segment is so aligned: LLVM widens loads up to there.
  const size_t declared = std::max<size_t>(launch.kernel->kernarg_bytes, config.kernarg_bytes);
  const size_t arguments = (declared + 63) & ~size_t{63};
  if (arguments)
    add(launch.kernarg, arguments, "kernel arguments", false, true)->track = context.kernarg_track;
  add(launch.packet, 64, "dispatch packet", false, false);
  add(reinterpret_cast<uint64_t>(launch.code->base), launch.code->image_bytes, "code object", true,
      false);
  launch.memory.finish(launch.checks.traffic);
}

struct Worker {
  emu_counters counters{};
  TrafficCount traffic;
};

class Grid {
 public:
  Grid(Launch &launch, const Options &options)
      : launch_(launch),
        options_(options),
        total_(uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2]) {}

  std::vector<Worker> run() {
    const uint64_t threads = std::clamp<uint64_t>(static_cast<uint64_t>(options_.threads), 1,
                                                  std::max<uint64_t>(total_, 1));
    std::vector<Worker> workers(threads);
    if (threads == 1) {
      work(workers[0]);
    } else {
      std::vector<std::thread> running;
      for (Worker &worker : workers) running.emplace_back([this, &worker] { work(worker); });
      for (std::thread &thread : running) thread.join();
    }
    if (failure_) std::rethrow_exception(failure_);
    return workers;
  }

 private:
  Launch &launch_;
  const Options &options_;
  const uint64_t total_;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;

  void work(Worker &worker) try {
    std::vector<std::unique_ptr<WorkgroupRunner>> active, idle;
    bool more = true;
    while (!stop_) {
      while (more && active.size() < static_cast<size_t>(std::max<int64_t>(options_.resident, 1))) {
        const uint64_t index = next_++;
        more = index < total_;
        if (!more) break;
        if (idle.empty())
          idle.push_back(std::make_unique<WorkgroupRunner>(launch_, options_, worker.counters,
                                                           worker.traffic));
        idle.back()->start(index);
        active.push_back(std::move(idle.back()));
        idle.pop_back();
      }
      if (active.empty()) return;
      for (size_t k = 0; k < active.size();) {
        if (!active[k]->run_round()) {
          k++;
          continue;
        }
        idle.push_back(std::move(active[k]));
        active.erase(active.begin() + static_cast<long>(k));
      }
    }
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    stop_ = true;
  }
};

uint64_t sum_of(const uint8_t *bytes, uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t n = 0; n < count; n++) sum += bytes[n];
  return sum;
}

// Counts the bytes of the touched pages, and passes them on to the caller's map.
TrafficTotal total_of(const VisibleAllocation &allocation, std::vector<Worker> &workers) {
  TrafficTotal total{allocation.name, allocation.begin, 0, 0, 0, 0};
  std::vector<uint32_t> pages;
  for (Worker &worker : workers) {
    auto found = worker.traffic.entries.find(&allocation);
    if (found == worker.traffic.entries.end()) continue;
    total.read += found->second.read;
    total.written += found->second.written;
    pages.insert(pages.end(), found->second.pages.begin(), found->second.pages.end());
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  const uint64_t size = allocation.end - allocation.begin;
  for (uint64_t page : pages) {
    const uint64_t begin = page << TouchedBytes::page_shift;
    const uint64_t count = std::min<uint64_t>(1 << TouchedBytes::page_shift, size - begin);
    const uint8_t *read = allocation.touched->read.data() + begin;
    const uint8_t *written = allocation.touched->written.data() + begin;
    total.read_distinct += sum_of(read, count);
    total.written_distinct += sum_of(written, count);
    if (!allocation.track) continue;
    for (uint64_t n = 0; n < count; n++)
      allocation.track[begin + n] |= static_cast<uint8_t>(read[n] | written[n] << 1);
  }
  return total;
}

void add_counters(emu_counters &sum, emu_counters part) {
  for (int family = 0; family < static_cast<int>(Family::count); family++) {
    const uint64_t count = counter_of(part, static_cast<Family>(family));
    counter_of(sum, static_cast<Family>(family)) += count;
    sum.instructions += count;
  }
  sum.barriers += part.barriers;
  sum.workgroups += part.workgroups;
  sum.waves += part.waves;
  sum.clipped_reads += part.clipped_reads;
  sum.clipped_writes += part.clipped_writes;
}

}  // namespace

LaunchResult run_launch(Context &context, CodeObject &code, const emu_launch_config &config) {
  const Options options = context.options;
  Launch launch;
  launch.code = &code;
  launch.kernel = &code.kernel(config.kernel);
  check_limits(code, *launch.kernel, config);
  std::copy_n(config.grid, 3, launch.grid);
  std::copy_n(config.block, 3, launch.block);
  launch.lds_bytes = launch.kernel->static_lds + config.dynamic_lds;
  launch.checks = {options.bounds != 0, options.waits != 0, options.waits > 1,
                   options.uninitialised != 0, options.bounds && options.traffic};
  set_arguments(launch, config);
  set_packet(launch);
  set_memory(launch, context, config);

  const auto start = std::chrono::steady_clock::now();
  std::vector<Worker> workers = Grid(launch, options).run();
  LaunchResult result;
  result.counters.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const Worker &worker : workers) add_counters(result.counters, worker.counters);
  for (const auto &allocation : launch.memory.allocations)
    if (allocation->touched) result.traffic.push_back(total_of(*allocation, workers));
  return result;
}

}  // namespace emu
