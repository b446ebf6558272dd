// SPDX-License-Identifier: Apache-2.0
// Keeps the records as JSON, the form in which Python asks for them.
#include "records.h"

#include <mutex>
#include <string>

#include "dispatch.h"
#include "error.h"

namespace hip {
namespace {

struct Records {
  bool recording = false;
  std::string launches;
  std::string module_loads;  // the names of each one's kernels
  size_t graph_launches = 0, graph_nodes = 0;
  size_t copies = 0, bytes_copied = 0;
  size_t fills = 0, bytes_filled = 0;
};
std::mutex mutex;
Records records;

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// Builds an object of one level; nested ones come in as text.
class Object {
 public:
  Object& raw(const char* name, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + quoted(name) + ": " + json;
    return *this;
  }
  Object& number(const char* name, uint64_t value) { return raw(name, std::to_string(value)); }
  std::string json() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

std::string json(dim3 d) {
  return "[" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + "]";
}

std::string json(const emu_counters& c) {
  return Object()
      .number("instructions", c.instructions)
      .number("scalar", c.scalar)
      .number("branch", c.branch)
      .number("vector", c.vector)
      .number("matrix", c.matrix)
      .number("lds", c.lds)
      .number("vector_memory", c.vector_memory)
      .number("scalar_memory", c.scalar_memory)
      .number("control", c.control)
      .number("barriers", c.barriers)
      .number("workgroups", c.workgroups)
      .number("waves", c.waves)
      .number("clipped_reads", c.clipped_reads)
      .number("clipped_writes", c.clipped_writes)
      .raw("seconds", std::to_string(c.seconds))
      .json();
}

std::string json(const emu_traffic& t) {
  return Object()
      .raw("name", quoted(t.name))
      .number("read_total", t.read_total)
      .number("written_total", t.written_total)
      .number("read_distinct", t.read_distinct)
      .number("written_distinct", t.written_distinct)
      .json();
}

std::string traffic_of_last_launch() {
  std::string list;
  emu_traffic entry;
  for (size_t i = 0; i < emu_traffic_count(); ++i) {
    if (emu_traffic_at(i, &entry) == 0) list += (list.empty() ? "" : ", ") + json(entry);
  }
  return "[" + list + "]";
}

}  // namespace

void record_launch(const Launch& launch, const emu_counters& counters) {
  std::lock_guard lock(mutex);
  if (!records.recording) return;
  const std::string entry = Object()
                                .raw("kernel", quoted(launch.kernel->name))
                                .raw("grid", json(launch.grid))
                                .raw("block", json(launch.block))
                                .raw("counters", json(counters))
                                .raw("traffic", traffic_of_last_launch())
                                .json();
  records.launches += (records.launches.empty() ? "" : ", ") + entry;
}

void record_graph_launch() {
  std::lock_guard lock(mutex);
  ++records.graph_launches;
}

void record_graph_node() {
  std::lock_guard lock(mutex);
  ++records.graph_nodes;
}

void record_module_load(const CodeObject& code) {
  std::lock_guard lock(mutex);
  if (!records.recording) return;
  std::string names;
  for (const auto& [name, kernel] : code.kernels()) {
    names += (names.empty() ? "" : ", ") + quoted(name);
  }
  records.module_loads += (records.module_loads.empty() ? "[" : ", [") + names + "]";
}

void record_copy(size_t bytes) {
  std::lock_guard lock(mutex);
  ++records.copies;
  records.bytes_copied += bytes;
}

void record_fill(size_t bytes) {
  std::lock_guard lock(mutex);
  ++records.fills;
  records.bytes_filled += bytes;
}

}  // namespace hip

using namespace hip;

// Forgets what was recorded and records from now on.
HIP_API void jax_mla_emulator_start_recording() {
  std::lock_guard lock(mutex);
  records = {};
  records.recording = true;
}

// What was recorded since, as JSON; the text lives until this thread asks again.
HIP_API const char* jax_mla_emulator_stop_recording() {
  static thread_local std::string text;
  std::lock_guard lock(mutex);
  records.recording = false;
  text = Object()
             .raw("launches", "[" + records.launches + "]")
             .raw("module_loads", "[" + records.module_loads + "]")
             .number("graph_launches", records.graph_launches)
             .number("graph_nodes", records.graph_nodes)
             .number("copies", records.copies)
             .number("bytes_copied", records.bytes_copied)
             .number("fills", records.fills)
             .number("bytes_filled", records.bytes_filled)
             .json();
  return text.c_str();
}

// The reports of all errors since the last call; the text lives until this thread asks again.
HIP_API const char* jax_mla_emulator_take_reports() {
  static thread_local std::string text;
  text = take_reports();
  return text.c_str();
}
