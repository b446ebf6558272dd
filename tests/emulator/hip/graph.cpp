// SPDX-License-Identifier: Apache-2.0
// Runs tasks and graphs of them.
#include "graph.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_set>

#include "dispatch.h"
#include "error.h"
#include "memory.h"
#include "records.h"
#include "scheduler.h"

namespace hip {
namespace {

hipError_t perform(const Nothing&) { return hipSuccess; }
hipError_t perform(const Launch& launch) { return dispatch(launch); }

hipError_t perform(const Copy& copy) {
  if (const std::string why = refusal(copy.source, copy.bytes); !why.empty()) {
    return fail(hipErrorInvalidValue, "copy from " + why);
  }
  if (const std::string why = refusal(copy.destination, copy.bytes); !why.empty()) {
    return fail(hipErrorInvalidValue, "copy to " + why);
  }
  std::memmove(copy.destination, copy.source, copy.bytes);
  mark_written(copy.destination, copy.bytes);
  record_copy(copy.bytes);
  return hipSuccess;
}

template <typename Element>
void fill_row(void* row, unsigned value, size_t count) {
  for (size_t i = 0; i < count; ++i) static_cast<Element*>(row)[i] = static_cast<Element>(value);
}

hipError_t perform(const hipMemsetParams& fill) {
  for (size_t y = 0; y < fill.height; ++y) {
    void* const row = static_cast<uint8_t*>(fill.dst) + y * fill.pitch;
    const size_t bytes = fill.width * fill.elementSize;
    if (const std::string why = refusal(row, bytes); !why.empty()) {
      return fail(hipErrorInvalidValue, "fill of " + why);
    }
    if (fill.elementSize == 1) fill_row<uint8_t>(row, fill.value, fill.width);
    if (fill.elementSize == 2) fill_row<uint16_t>(row, fill.value, fill.width);
    if (fill.elementSize == 4) fill_row<uint32_t>(row, fill.value, fill.width);
    mark_written(row, bytes);
    record_fill(bytes);
  }
  return hipSuccess;
}

hipError_t perform(const HostCall& call) {
  call.function(call.data);
  return hipSuccess;
}

hipError_t perform(const std::shared_ptr<const Graph>& graph) {
  std::unordered_set<const Node*> done;
  const auto ready = [&](const Node& node) {
    if (done.contains(&node)) return false;
    return std::all_of(node.after.begin(), node.after.end(),
                       [&](const Node* before) { return done.contains(before); });
  };
  while (done.size() < graph->nodes.size()) {
    std::vector<const Node*> candidates;
    for (const Node& node : graph->nodes) {
      if (ready(node)) candidates.push_back(&node);
    }
    if (candidates.empty()) return fail(hipErrorInvalidValue, "a graph with a cycle");
    const Node* const chosen = candidates[choose(candidates.size())];
    if (const hipError_t error = run(chosen->task)) return error;
    if (!std::holds_alternative<std::shared_ptr<const Graph>>(chosen->task)) record_graph_node();
    done.insert(chosen);
  }
  return hipSuccess;
}

}  // namespace

hipError_t run(const Task& task) {
  return std::visit([](const auto& kind) { return perform(kind); }, task);
}

std::unique_ptr<Graph> clone(const Graph& graph, std::unordered_map<const Node*, Node*>* copies) {
  std::unordered_map<const Node*, Node*> here;
  auto copy = std::make_unique<Graph>();
  for (const Node& node : graph.nodes) {
    here[&node] = &copy->nodes.emplace_back(node);
  }
  for (Node& node : copy->nodes) {
    for (Node*& before : node.after) before = here.at(before);
  }
  if (copies) *copies = std::move(here);
  return copy;
}

}  // namespace hip
