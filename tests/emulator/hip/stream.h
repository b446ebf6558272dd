// SPDX-License-Identifier: Apache-2.0
// Streams, events and capture: the order in which tasks run, or the graph that they become.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "abi.h"
#include "graph.h"
#include "scheduler.h"

namespace hip {

struct Stream;

// A graph in the making.
struct Capture {
  Stream* origin;
  hipStreamCaptureMode mode;
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();  // null once it has been handed out
  bool valid = true;
};

struct Stream {
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool is_default = false;
  Ticket last;                    // the newest operation
  hipError_t error = hipSuccess;  // of work that ran behind the host's back, until it is told
  std::shared_ptr<Capture> capture;
  std::vector<Node*> captured;  // what the next captured task comes after
};

struct Event {
  Ticket recorded;
  std::shared_ptr<Capture> capture;
  std::vector<Node*> captured;
};

// Guards every stream and event; never held while work runs.
extern std::mutex streams_mutex;

// With streams_mutex held: the stream that a handle stands for, or null.
Stream* find_stream(hipStream_t handle);

// With streams_mutex held: every stream that was not destroyed.
std::vector<Stream*> all_streams();

// Runs, queues or captures `task`.
hipError_t submit(hipStream_t stream, Task task);

// As submit; then waits, unless the task was captured.
hipError_t submit_and_wait(hipStream_t stream, Task task);

// Waits for all work of all devices and tells the first error that was not told yet.
hipError_t wait_for_all_streams();

// Whether this thread captures in a mode that forbids calls which would wait or allocate.
bool capturing_thread();

}  // namespace hip
