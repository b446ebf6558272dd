// SPDX-License-Identifier: Apache-2.0
// What a stream can be asked to do, and graphs of it.
#pragma once

#include <list>
#include <memory>
#include <unordered_map>
#include <variant>
#include <vector>

#include "abi.h"
#include "launch.h"

namespace hip {

struct Copy {
  void* destination;
  const void* source;
  size_t bytes;
};
struct HostCall {
  hipHostFn_t function;
  void* data;
};
struct Graph;
struct Nothing {};

using Task = std::variant<Nothing, Launch, Copy, hipMemsetParams, HostCall,
                          std::shared_ptr<const Graph>>;

struct Node {
  Task task;
  std::vector<Node*> after;  // nodes of the same graph
};

struct Graph {
  std::list<Node> nodes;
};

// A copy; `copies` receives, if given, the new node of each old one.
std::unique_ptr<Graph> clone(const Graph& graph,
                             std::unordered_map<const Node*, Node*>* copies = nullptr);

// Does it, at once. A graph's nodes run in an order that their edges allow.
hipError_t run(const Task& task);

}  // namespace hip
