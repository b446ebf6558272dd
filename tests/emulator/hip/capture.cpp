// SPDX-License-Identifier: Apache-2.0
// HIP's stream capture: tasks become the nodes of a graph instead of running.
#include <unordered_set>

#include "error.h"
#include "stream.h"

namespace hip {
namespace {

thread_local int captures_of_thread = 0;

// Whether every captured node comes before the origin's last ones: forked streams have come back.
bool all_joined(const Capture& capture) {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> open(capture.origin->captured.begin(), capture.origin->captured.end());
  while (!open.empty()) {
    const Node* const node = open.back();
    open.pop_back();
    if (seen.insert(node).second) open.insert(open.end(), node->after.begin(), node->after.end());
  }
  return seen.size() == capture.graph->nodes.size();
}

void release_streams(const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : all_streams()) {
    if (stream->capture != capture) continue;
    stream->capture = nullptr;
    stream->captured.clear();
  }
}

}  // namespace

bool capturing_thread() { return captures_of_thread > 0; }

}  // namespace hip

using namespace hip;

HIP_API hipError_t hipStreamBeginCapture(hipStream_t handle, hipStreamCaptureMode mode) {
  std::lock_guard lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  if (stream->is_default) return fail(hipErrorStreamCaptureUnsupported);
  if (stream->capture) return fail(hipErrorIllegalState);
  stream->capture = std::make_shared<Capture>(stream, mode);
  if (mode != hipStreamCaptureModeRelaxed) ++captures_of_thread;
  return hipSuccess;
}

HIP_API hipError_t hipStreamEndCapture(hipStream_t handle, hipGraph_t* graph) {
  std::lock_guard lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return fail(hipErrorIllegalState);
  if (capture->origin != stream) return fail(hipErrorStreamCaptureUnmatched);
  const bool joined = all_joined(*capture);
  if (capture->mode != hipStreamCaptureModeRelaxed) --captures_of_thread;
  release_streams(capture);
  std::unique_ptr<Graph> made = std::move(capture->graph);
  *graph = nullptr;
  if (!capture->valid) return fail(hipErrorStreamCaptureInvalidated);
  if (!joined) return fail(hipErrorStreamCaptureUnjoined, "a stream that was forked while capturing"
                                                          " did not come back");
  *graph = reinterpret_cast<hipGraph_t>(made.release());
  return hipSuccess;
}

HIP_API hipError_t hipStreamGetCaptureInfo(hipStream_t handle, hipStreamCaptureStatus* status,
                                           unsigned long long* id) {
  std::lock_guard lock(streams_mutex);
  const Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  const Capture* const capture = stream->capture.get();
  *status = !capture          ? hipStreamCaptureStatusNone
            : capture->valid ? hipStreamCaptureStatusActive
                             : hipStreamCaptureStatusInvalidated;
  if (id) *id = reinterpret_cast<uintptr_t>(capture);
  return hipSuccess;
}
HIP_API hipError_t hipStreamIsCapturing(hipStream_t stream, hipStreamCaptureStatus* status) {
  return hipStreamGetCaptureInfo(stream, status, nullptr);
}
HIP_API hipError_t hipThreadExchangeStreamCaptureMode(hipStreamCaptureMode* mode) {
  *mode = hipStreamCaptureModeGlobal;
  return hipSuccess;
}
