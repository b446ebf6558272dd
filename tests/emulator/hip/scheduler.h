// SPDX-License-Identifier: Apache-2.0
// Work with an order: each operation runs once all those it comes after are done.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "abi.h"

namespace hip {

struct Operation {
  std::function<hipError_t()> work;
  std::vector<std::shared_ptr<Operation>> after;  // emptied when done
  bool done = false;
  hipError_t result = hipSuccess;
  std::chrono::steady_clock::time_point finished;
};
using Ticket = std::shared_ptr<Operation>;  // a null ticket stands for work long done

// With ordered streams runs `operation` in this thread, before it returns, and gives its result. With
// random streams queues it for a thread that takes any operation whose turn may have come.
hipError_t start(const Ticket& operation);

bool is_done(const Ticket& operation);

// Blocks until the operation is done. False: this is the thread that would have to run it.
bool wait(const Ticket& operation);

// One of 0 .. count - 1: the first with ordered streams, any with random ones.
size_t choose(size_t count);

}  // namespace hip
