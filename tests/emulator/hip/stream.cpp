// SPDX-License-Identifier: Apache-2.0
// HIP's streams and events.
#include "stream.h"

#include <set>
#include <utility>

#include "device.h"
#include "error.h"
#include "settings.h"

namespace hip {

std::mutex streams_mutex;

namespace {

using Lock = std::unique_lock<std::mutex>;

std::set<Stream*> created_streams;

Stream& default_stream(int device) {
  static std::vector<Stream> streams = [] {
    std::vector<Stream> made(settings().devices);
    for (int i = 0; i < settings().devices; ++i) {
      made[i].device = i;
      made[i].is_default = true;
    }
    return made;
  }();
  return streams[device];
}

bool is_blocking(const Stream& stream) { return !(stream.flags & hipStreamNonBlocking); }

// What the next operation of `stream` comes after: its last one and, between the default stream and
// those that were not created as non-blocking, each other's.
std::vector<Ticket> predecessors(const Stream& stream) {
  std::vector<Ticket> before = {stream.last};
  if (stream.is_default) {
    for (const Stream* other : created_streams) {
      if (other->device == stream.device && is_blocking(*other)) before.push_back(other->last);
    }
  } else if (is_blocking(stream)) {
    before.push_back(default_stream(stream.device).last);
  }
  return before;
}

// Releases the lock, since with ordered streams the work runs here.
hipError_t enqueue(Stream& stream, std::function<hipError_t()> work, const Ticket& also_after,
                   Lock& lock) {
  auto operation = std::make_shared<Operation>();
  operation->work = std::move(work);
  operation->after = predecessors(stream);
  operation->after.push_back(also_after);
  stream.last = operation;
  lock.unlock();
  return fail(start(operation));
}

std::function<hipError_t()> work_of(Stream& stream, Task task) {
  return [&stream, task = std::move(task)] {
    const hipError_t error = run(task);
    if (error && settings().random_streams) {
      std::lock_guard lock(streams_mutex);
      stream.error = error;
    }
    return error;
  };
}

hipError_t wait_for(Stream& stream, Lock& lock) {
  const Ticket last = stream.last;
  lock.unlock();
  if (!wait(last)) return fail(hipErrorIllegalState, "a host callback waits for a stream");
  lock.lock();
  return fail(std::exchange(stream.error, hipSuccess));
}

hipError_t nothing() { return hipSuccess; }

}  // namespace

Stream* find_stream(hipStream_t handle) {
  if (!handle || handle == hipStreamLegacy || handle == hipStreamPerThread) {
    return &default_stream(current_device());
  }
  auto* const stream = reinterpret_cast<Stream*>(handle);
  return created_streams.contains(stream) ? stream : nullptr;
}

std::vector<Stream*> all_streams() {
  std::vector<Stream*> streams(created_streams.begin(), created_streams.end());
  for (int i = 0; i < settings().devices; ++i) streams.push_back(&default_stream(i));
  return streams;
}

hipError_t submit(hipStream_t handle, Task task) {
  Lock lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  if (!stream->capture) return enqueue(*stream, work_of(*stream, std::move(task)), nullptr, lock);
  Node& node = stream->capture->graph->nodes.emplace_back(std::move(task), stream->captured);
  stream->captured = {&node};
  return hipSuccess;
}

hipError_t submit_and_wait(hipStream_t handle, Task task) {
  if (const hipError_t error = submit(handle, std::move(task))) return error;
  Lock lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  return stream->capture ? hipSuccess : wait_for(*stream, lock);
}

hipError_t wait_for_all_streams() {
  Lock lock(streams_mutex);
  std::vector<Ticket> last;
  for (const Stream* stream : all_streams()) last.push_back(stream->last);
  lock.unlock();
  for (const Ticket& operation : last) {
    if (!wait(operation)) return fail(hipErrorIllegalState, "a host callback waits for the device");
  }
  lock.lock();
  hipError_t first = hipSuccess;
  for (Stream* stream : all_streams()) {
    const hipError_t error = std::exchange(stream->error, hipSuccess);
    if (!first) first = error;
  }
  return fail(first);
}

}  // namespace hip

using namespace hip;

HIP_API hipError_t hipStreamCreateWithPriority(hipStream_t* stream, unsigned flags, int priority) {
  auto* const created = new Stream{current_device(), flags, priority};
  std::lock_guard lock(streams_mutex);
  created_streams.insert(created);
  *stream = reinterpret_cast<hipStream_t>(created);
  return hipSuccess;
}
HIP_API hipError_t hipStreamCreateWithFlags(hipStream_t* stream, unsigned flags) {
  return hipStreamCreateWithPriority(stream, flags, 0);
}
HIP_API hipError_t hipStreamCreate(hipStream_t* stream) {
  return hipStreamCreateWithPriority(stream, 0, 0);
}
HIP_API hipError_t hipDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 1;
  if (greatest) *greatest = -1;
  return hipSuccess;
}
HIP_API hipError_t hipStreamDestroy(hipStream_t handle) {
  Lock lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream || stream->is_default) return fail(hipErrorInvalidHandle);
  const hipError_t error = wait_for(*stream, lock);
  if (!lock) return error;
  created_streams.erase(stream);
  delete stream;
  return error;
}
HIP_API hipError_t hipStreamSynchronize(hipStream_t handle) {
  Lock lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  if (!stream->capture) return wait_for(*stream, lock);
  stream->capture->valid = false;
  return fail(hipErrorStreamCaptureUnsupported);
}
HIP_API hipError_t hipDeviceSynchronize() {
  if (capturing_thread()) return fail(hipErrorStreamCaptureUnsupported);
  return wait_for_all_streams();
}
HIP_API hipError_t hipStreamQuery(hipStream_t handle) {
  Lock lock(streams_mutex);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  if (stream->capture) return fail(hipErrorStreamCaptureUnsupported);
  if (!is_done(stream->last)) return hipErrorNotReady;
  return fail(std::exchange(stream->error, hipSuccess));
}
HIP_API hipError_t hipStreamGetDevice(hipStream_t handle, hipDevice_t* device) {
  Lock lock(streams_mutex);
  const Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  *device = stream->device;
  return hipSuccess;
}
HIP_API int hipGetStreamDeviceId(hipStream_t handle) {
  int device = -1;
  hipStreamGetDevice(handle, &device);
  return device;
}
HIP_API hipError_t hipLaunchHostFunc(hipStream_t stream, hipHostFn_t function, void* data) {
  return submit(stream, HostCall{function, data});
}

// --- Events ---------------------------------------------------------------------------------------

HIP_API hipError_t hipEventCreateWithFlags(hipEvent_t* event, unsigned) {
  *event = reinterpret_cast<hipEvent_t>(new Event);
  return hipSuccess;
}
HIP_API hipError_t hipEventCreate(hipEvent_t* event) { return hipEventCreateWithFlags(event, 0); }
HIP_API hipError_t hipEventDestroy(hipEvent_t event) {
  std::lock_guard lock(streams_mutex);
  delete reinterpret_cast<Event*>(event);
  return hipSuccess;
}
HIP_API hipError_t hipEventRecord(hipEvent_t handle, hipStream_t stream_handle) {
  Lock lock(streams_mutex);
  auto* const event = reinterpret_cast<Event*>(handle);
  Stream* const stream = find_stream(stream_handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  event->capture = stream->capture;
  event->captured = stream->captured;
  if (stream->capture) return hipSuccess;
  // A marker of its own: what it comes after is all the work so far.
  auto marker = std::make_shared<Operation>();
  marker->work = nothing;
  marker->after = predecessors(*stream);
  stream->last = event->recorded = marker;
  lock.unlock();
  return start(marker);
}
HIP_API hipError_t hipStreamWaitEvent(hipStream_t handle, hipEvent_t event_handle, unsigned) {
  Lock lock(streams_mutex);
  const auto* const event = reinterpret_cast<Event*>(event_handle);
  Stream* const stream = find_stream(handle);
  if (!stream) return fail(hipErrorInvalidHandle);
  if (event->capture && event->capture->graph) {  // the stream joins the capture
    if (stream->capture && stream->capture != event->capture) {
      return fail(hipErrorStreamCaptureIsolation);
    }
    stream->capture = event->capture;
    stream->captured.insert(stream->captured.end(), event->captured.begin(),
                            event->captured.end());
    return hipSuccess;
  }
  if (stream->capture) return fail(hipErrorStreamCaptureIsolation);
  return enqueue(*stream, nothing, event->recorded, lock);
}
HIP_API hipError_t hipEventSynchronize(hipEvent_t event) {
  Lock lock(streams_mutex);
  const Ticket recorded = reinterpret_cast<Event*>(event)->recorded;
  lock.unlock();
  return wait(recorded) ? hipSuccess : fail(hipErrorIllegalState);
}
HIP_API hipError_t hipEventQuery(hipEvent_t event) {
  std::lock_guard lock(streams_mutex);
  return is_done(reinterpret_cast<Event*>(event)->recorded) ? hipSuccess : hipErrorNotReady;
}
HIP_API hipError_t hipEventElapsedTime(float* milliseconds, hipEvent_t start, hipEvent_t stop) {
  std::lock_guard lock(streams_mutex);
  const Ticket first = reinterpret_cast<Event*>(start)->recorded;
  const Ticket second = reinterpret_cast<Event*>(stop)->recorded;
  if (!first || !second) return fail(hipErrorInvalidHandle);
  if (!is_done(first) || !is_done(second)) return hipErrorNotReady;
  *milliseconds =
      std::chrono::duration<float, std::milli>(second->finished - first->finished).count();
  return hipSuccess;
}
