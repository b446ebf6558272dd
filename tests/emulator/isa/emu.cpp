// SPDX-License-Identifier: Apache-2.0
// The C API.
#include "emu.h"

#include <string_view>

#include "code_object.h"
#include "error.h"
#include "launch.h"

struct emu_context {
  emu::Context context;
};

struct emu_module {
  emu::Context &context;
  std::unique_ptr<emu::CodeObject> code;
};

namespace {

thread_local std::string last_error;
thread_local std::vector<emu::TrafficTotal> last_traffic;

template <class F>
int guarded(F function) {
  try {
    function();
    return 0;
  } catch (const std::exception &error) {
    last_error = error.what();
    return 1;
  }
}

uint64_t address_of(const void *ptr) { return reinterpret_cast<uint64_t>(ptr); }

int64_t &option(emu::Options &options, std::string_view name) {
  const std::pair<std::string_view, int64_t *> table[] = {
      {"threads", &options.threads}, {"resident", &options.resident},
      {"quantum", &options.quantum}, {"bounds", &options.bounds},
      {"waits", &options.waits},     {"uninitialised", &options.uninitialised},
      {"traffic", &options.traffic}, {"max_instructions", &options.max_instructions},
      {"trace", &options.trace},
  };
  for (const auto &[known, value] : table)
    if (known == name) return *value;
  throw emu::Error("there is no option '" + std::string(name) + "'");
}

}  // namespace

extern "C" {

const char *emu_last_error(void) { return last_error.c_str(); }

emu_context *emu_create(void) { return new emu_context; }
void emu_destroy(emu_context *context) { delete context; }

int emu_set_option(emu_context *context, const char *name, int64_t value) {
  return guarded([&] { option(context->context.options, name) = value; });
}

int emu_register(emu_context *context, const void *ptr, size_t bytes, const char *name,
                 int writable) {
  return guarded([&] {
    const bool watched = context->context.options.uninitialised != 0;
    context->context.memory.add(address_of(ptr), bytes, name ? name : "", writable != 0, watched);
  });
}

int emu_unregister(emu_context *context, const void *ptr) {
  return guarded([&] { context->context.memory.remove(address_of(ptr)); });
}

int emu_mark_written(emu_context *context, const void *ptr, size_t bytes) {
  return guarded([&] { context->context.memory.mark_written(address_of(ptr), bytes); });
}

int emu_track(emu_context *context, const void *ptr, uint8_t *map) {
  return guarded([&] {
    if (ptr)
      context->context.memory.track(address_of(ptr), map);
    else
      context->context.kernarg_track = map;
  });
}

emu_module *emu_load(emu_context *context, const void *bytes, size_t size, const char *arch) {
  emu_module *module = nullptr;
  guarded(
      [&] { module = new emu_module{context->context, emu::load_code_object(bytes, size, arch)}; });
  return module;
}

void emu_unload(emu_module *module) { delete module; }

const char *emu_arch(const emu_module *module) { return module->code->arch_name.c_str(); }

void *emu_symbol(emu_module *module, const char *name, size_t *size) {
  auto found = module->code->variables.find(name);
  if (found == module->code->variables.end()) {
    last_error = std::string("the code object has no variable '") + name + "'";
    return nullptr;
  }
  if (size) *size = found->second.size;
  return module->code->base + found->second.offset;
}

size_t emu_kernel_count(const emu_module *module) { return module->code->kernels.size(); }

int emu_kernel(const emu_module *module, size_t index, emu_kernel_info *info) {
  return guarded([&] {
    const emu::Kernel &k = module->code->kernels.at(index);
    *info = {k.name.c_str(),   k.kernarg_bytes,
             k.explicit_bytes, k.static_lds,
             k.private_bytes,  k.max_workgroup_size,
             k.sgprs,          k.vgprs,
             k.agprs,          static_cast<uint32_t>(k.arguments.size())};
  });
}

int emu_kernel_argument(const emu_module *module, size_t kernel, size_t index,
                        emu_argument_info *info) {
  return guarded([&] {
    const emu::Argument &a = module->code->kernels.at(kernel).arguments.at(index);
    *info = {a.name.c_str(), a.kind.c_str(), a.offset, a.size};
  });
}

int emu_launch(emu_module *module, const emu_launch_config *config, emu_counters *counters) {
  last_traffic.clear();
  return guarded([&] {
    emu::LaunchResult result = emu::run_launch(module->context, *module->code, *config);
    last_traffic = std::move(result.traffic);
    if (counters) *counters = result.counters;
  });
}

size_t emu_traffic_count(void) { return last_traffic.size(); }

int emu_traffic_at(size_t index, emu_traffic *traffic) {
  return guarded([&] {
    const emu::TrafficTotal &t = last_traffic.at(index);
    *traffic = {t.name.c_str(),  reinterpret_cast<const void *>(t.address),
                t.read,          t.written,
                t.read_distinct, t.written_distinct};
  });
}

size_t emu_disassemble(emu_module *module, uint64_t offset, char *text, size_t size,
                       int *implemented) {
  const emu::Instruction *instruction = module->code->fetch(module->code->code_begin + offset);
  if (!instruction) return 0;
  if (size) std::snprintf(text, size, "%s", emu::disassemble(*instruction).c_str());
  if (implemented) *implemented = instruction->opcode && instruction->opcode->execute;
  return instruction->bytes;
}

}  // extern "C"
