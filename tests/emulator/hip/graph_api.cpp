// SPDX-License-Identifier: Apache-2.0
// HIP's graph functions.
#include <algorithm>

#include "error.h"
#include "graph.h"
#include "records.h"
#include "stream.h"

namespace hip {
namespace {

// An instantiated graph, and where in it each node of the original went.
struct Executable {
  std::unique_ptr<Graph> graph;
  std::unordered_map<const Node*, Node*> copies;

  explicit Executable(const Graph& original) { graph = clone(original, &copies); }
};

Graph& graph_of(hipGraph_t handle) { return *reinterpret_cast<Graph*>(handle); }
Executable& executable_of(hipGraphExec_t handle) { return *reinterpret_cast<Executable*>(handle); }
hipGraphNode_t handle_of(const Node& node) {
  return reinterpret_cast<hipGraphNode_t>(const_cast<Node*>(&node));
}

std::shared_ptr<const Graph> snapshot(const Graph& graph) { return clone(graph); }

hipError_t add(hipGraphNode_t* out, hipGraph_t graph, const hipGraphNode_t* after, size_t count,
               Task task) {
  auto* const before = reinterpret_cast<Node* const*>(after);
  Node& node = graph_of(graph).nodes.emplace_back(std::move(task));
  node.after.assign(before, before + count);
  *out = handle_of(node);
  return hipSuccess;
}

// Later launches of the executable do `task` where `node` of the original graph was copied to.
hipError_t replace(hipGraphExec_t executable, hipGraphNode_t node, Task task) {
  const auto& copies = executable_of(executable).copies;
  const auto found = copies.find(reinterpret_cast<const Node*>(node));
  if (found == copies.end() || found->second->task.index() != task.index()) {
    return fail(hipErrorInvalidValue, "update of a graph node that is not there");
  }
  found->second->task = std::move(task);
  return hipSuccess;
}

hipError_t kernel_task(const hipKernelNodeParams& p, Launch* launch) {
  return make_launch(p.func, p.gridDim, p.blockDim, p.sharedMemBytes, p.kernelParams, p.extra,
                     launch);
}

void list(const std::vector<const Node*>& nodes, hipGraphNode_t* out, size_t* count) {
  if (out) {
    *count = std::min(*count, nodes.size());
    std::transform(nodes.begin(), nodes.begin() + *count, out,
                   [](const Node* node) { return handle_of(*node); });
  } else {
    *count = nodes.size();
  }
}

}  // namespace
}  // namespace hip

using namespace hip;

HIP_API hipError_t hipGraphCreate(hipGraph_t* graph, unsigned) {
  *graph = reinterpret_cast<hipGraph_t>(new Graph);
  return hipSuccess;
}
HIP_API hipError_t hipGraphDestroy(hipGraph_t graph) {
  delete &graph_of(graph);
  return hipSuccess;
}

HIP_API hipError_t hipGraphAddEmptyNode(hipGraphNode_t* out, hipGraph_t graph,
                                        const hipGraphNode_t* after, size_t count) {
  return add(out, graph, after, count, Nothing{});
}
HIP_API hipError_t hipGraphAddKernelNode(hipGraphNode_t* out, hipGraph_t graph,
                                         const hipGraphNode_t* after, size_t count,
                                         const hipKernelNodeParams* params) {
  Launch launch;
  if (const hipError_t error = kernel_task(*params, &launch)) return error;
  return add(out, graph, after, count, std::move(launch));
}
HIP_API hipError_t hipGraphAddMemcpyNode1D(hipGraphNode_t* out, hipGraph_t graph,
                                           const hipGraphNode_t* after, size_t count, void* to,
                                           const void* from, size_t bytes, hipMemcpyKind) {
  return add(out, graph, after, count, Copy{to, from, bytes});
}
HIP_API hipError_t hipGraphAddMemsetNode(hipGraphNode_t* out, hipGraph_t graph,
                                         const hipGraphNode_t* after, size_t count,
                                         const hipMemsetParams* params) {
  return add(out, graph, after, count, *params);
}
HIP_API hipError_t hipGraphAddHostNode(hipGraphNode_t* out, hipGraph_t graph,
                                       const hipGraphNode_t* after, size_t count,
                                       const hipHostNodeParams* params) {
  return add(out, graph, after, count, HostCall{params->fn, params->userData});
}
HIP_API hipError_t hipGraphAddChildGraphNode(hipGraphNode_t* out, hipGraph_t graph,
                                             const hipGraphNode_t* after, size_t count,
                                             hipGraph_t child) {
  return add(out, graph, after, count, snapshot(graph_of(child)));
}

HIP_API hipError_t hipGraphGetNodes(hipGraph_t graph, hipGraphNode_t* out, size_t* count) {
  std::vector<const Node*> nodes;
  for (const Node& node : graph_of(graph).nodes) nodes.push_back(&node);
  list(nodes, out, count);
  return hipSuccess;
}
HIP_API hipError_t hipGraphGetRootNodes(hipGraph_t graph, hipGraphNode_t* out, size_t* count) {
  std::vector<const Node*> roots;
  for (const Node& node : graph_of(graph).nodes) {
    if (node.after.empty()) roots.push_back(&node);
  }
  list(roots, out, count);
  return hipSuccess;
}
HIP_API hipError_t hipGraphDebugDotPrint(hipGraph_t, const char*, unsigned) { return hipSuccess; }

HIP_API hipError_t hipGraphInstantiate(hipGraphExec_t* executable, hipGraph_t graph,
                                       hipGraphNode_t*, char*, size_t) {
  *executable = reinterpret_cast<hipGraphExec_t>(new Executable(graph_of(graph)));
  return hipSuccess;
}
HIP_API hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t* executable, hipGraph_t graph,
                                                unsigned long long) {
  return hipGraphInstantiate(executable, graph, nullptr, nullptr, 0);
}
HIP_API hipError_t hipGraphExecDestroy(hipGraphExec_t executable) {
  delete &executable_of(executable);
  return hipSuccess;
}
HIP_API hipError_t hipGraphLaunch(hipGraphExec_t executable, hipStream_t stream) {
  record_graph_launch();
  return submit(stream, snapshot(*executable_of(executable).graph));
}

HIP_API hipError_t hipGraphExecKernelNodeSetParams(hipGraphExec_t executable, hipGraphNode_t node,
                                                   const hipKernelNodeParams* params) {
  Launch launch;
  if (const hipError_t error = kernel_task(*params, &launch)) return error;
  return replace(executable, node, std::move(launch));
}
HIP_API hipError_t hipGraphExecMemcpyNodeSetParams1D(hipGraphExec_t executable,
                                                     hipGraphNode_t node, void* to,
                                                     const void* from, size_t bytes,
                                                     hipMemcpyKind) {
  return replace(executable, node, Copy{to, from, bytes});
}
HIP_API hipError_t hipGraphExecMemsetNodeSetParams(hipGraphExec_t executable, hipGraphNode_t node,
                                                   const hipMemsetParams* params) {
  return replace(executable, node, *params);
}
HIP_API hipError_t hipGraphExecChildGraphNodeSetParams(hipGraphExec_t executable,
                                                       hipGraphNode_t node, hipGraph_t child) {
  return replace(executable, node, snapshot(graph_of(child)));
}
HIP_API hipError_t hipGraphExecUpdate(hipGraphExec_t executable, hipGraph_t graph, hipGraphNode_t*,
                                      hipGraphExecUpdateResult* result) {
  executable_of(executable) = Executable(graph_of(graph));
  if (result) *result = hipGraphExecUpdateSuccess;
  return hipSuccess;
}
