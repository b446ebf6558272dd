// SPDX-License-Identifier: Apache-2.0
// Runs operations at once, or on a thread of its own in a random order that the queues allow.
#include "scheduler.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "settings.h"

namespace hip {
namespace {

// Never destroyed: the worker outlives main, though after it nothing new is begun.
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Ticket> queued;
  std::mt19937_64 random{settings().seed};
  std::thread::id worker;
  bool main_has_ended = false;
};
State& state() {
  static State& only = *new State;
  return only;
}

using Lock = std::unique_lock<std::mutex>;

bool ready(const Ticket& operation) {
  return std::all_of(operation->after.begin(), operation->after.end(),
                     [](const Ticket& before) { return !before || before->done; });
}

hipError_t run(const Ticket& operation, Lock& lock) {
  lock.unlock();
  const hipError_t result = operation->work();
  lock.lock();
  operation->result = result;
  operation->finished = std::chrono::steady_clock::now();
  operation->work = nullptr;
  operation->after.clear();
  operation->done = true;
  state().changed.notify_all();
  return result;
}

size_t choose_locked(size_t count) {
  return std::uniform_int_distribution<size_t>(0, count - 1)(state().random);
}

// The pause lets the host run ahead, as it does of a GPU: who forgets to wait then sees old data.
void pause(Lock& lock) {
  const auto length = std::chrono::microseconds(choose_locked(300));
  lock.unlock();
  std::this_thread::sleep_for(length);
  lock.lock();
}

[[noreturn]] void work() {
  State& s = state();
  Lock lock(s.mutex);
  s.worker = std::this_thread::get_id();
  for (;;) {
    s.changed.wait(lock, [&] {
      return !s.main_has_ended && std::any_of(s.queued.begin(), s.queued.end(), ready);
    });
    pause(lock);
    const auto rest = std::partition(s.queued.begin(), s.queued.end(), ready);
    const auto chosen = s.queued.begin() + choose_locked(rest - s.queued.begin());
    const Ticket operation = *chosen;
    s.queued.erase(chosen);
    run(operation, lock);
  }
}

void start_worker() {
  std::thread(work).detach();
  std::atexit([] {
    Lock lock(state().mutex);
    state().main_has_ended = true;
  });
}

}  // namespace

hipError_t start(const Ticket& operation) {
  State& s = state();
  Lock lock(s.mutex);
  if (!settings().random_streams) {
    s.changed.wait(lock, [&] { return ready(operation); });
    return run(operation, lock);
  }
  static std::once_flag once;
  std::call_once(once, start_worker);
  s.queued.push_back(operation);
  s.changed.notify_all();
  return hipSuccess;
}

bool is_done(const Ticket& operation) {
  Lock lock(state().mutex);
  return !operation || operation->done;
}

bool wait(const Ticket& operation) {
  State& s = state();
  Lock lock(s.mutex);
  if (!operation || operation->done) return true;
  if (std::this_thread::get_id() == s.worker) return false;
  s.changed.wait(lock, [&] { return operation->done; });
  return true;
}

size_t choose(size_t count) {
  if (!settings().random_streams) return 0;
  Lock lock(state().mutex);
  return choose_locked(count);
}

}  // namespace hip
