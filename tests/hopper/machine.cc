// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace machine {
namespace {

constexpr unsigned kWave = 32, kLargest = 64;  // bytes that a lane gives or gets
constexpr size_t kStack = 128 << 10;

struct Word {
  void* to;
  const void* from;
};
struct Box {
  char* to;
  Map map;
  int line;
  Barrier* barrier;
};
struct Wave {
  const void* operation = nullptr;
  unsigned arrived = 0, turn = 0;
  char in[kWave * kLargest], out[kWave * kLargest];
};
struct Meeting {
  unsigned arrived = 0, turn = 0;
};
struct Thread {
  ucontext_t beginning;
  jmp_buf place;  // once it has begun; to change contexts would cost system calls
  bool begun = false;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Index index;
  bool done = false;
  std::vector<Word> words;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Wave> waves;
  Meeting meetings[16];
  std::vector<Box> boxes;  // on their way
  jmp_buf scheduler;
  Thread* running = nullptr;
  unsigned long long events = 0;  // to tell waiting from standing still
  std::string error;
  std::mt19937 random;
};
Block* block;

void yield() {
  if (_setjmp(block->running->place) == 0) _longjmp(block->scheduler, 1);
}
void resume(Thread& thread) {
  block->running = &thread;
  if (_setjmp(block->scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.beginning);
}

[[noreturn]] void fail(const std::string& error) {
  if (block->error.empty()) block->error = error;
  for (;;) yield();
}

void settle(Barrier& barrier) {
  ++block->events;
  if (barrier.left < 0) fail("more arrivals at a barrier than it takes");
  if (barrier.left > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.left = barrier.arrivals;
}

void deliver(const Box& box) {
  const Map& map = box.map;
  const unsigned mask = map.line_bytes == 128 ? 7 : 3;
  for (unsigned i = 0; i < map.box_lines; ++i) {
    const auto line = static_cast<unsigned long long>(box.line) + i;
    for (unsigned j = 0; j < map.line_bytes; j += 16) {
      const auto at = reinterpret_cast<unsigned long long>(box.to + i * map.line_bytes + j);
      char* const to = reinterpret_cast<char*>(at ^ (at >> 7 & mask) << 4);
      if (line < map.lines) {
        std::memcpy(to, map.start + line * map.line_bytes + j, 16);
      } else {
        std::memset(to, 0, 16);
      }
    }
  }
  box.barrier->bytes -= static_cast<long long>(map.box_lines) * map.line_bytes;
  settle(*box.barrier);
}

void deliver_some(bool all) {
  for (size_t i = 0; i < block->boxes.size();) {
    if (!all && block->random() % 4 != 0) {
      ++i;
      continue;
    }
    const Box box = block->boxes[i];
    block->boxes.erase(block->boxes.begin() + static_cast<long>(i));
    deliver(box);
  }
}

void (*body)(void*);
void* state;
void start() {
  body(state);
  if (!block->running->words.empty()) fail("a thread left copies behind");
  block->running->done = true;
  ++block->events;
  yield();
}

}  // namespace

const Index& index() { return block->running->index; }

void* together(const void* operation, const void* in, unsigned in_bytes, unsigned out_bytes,
               void (*all)(const void* in, void* out)) {
  const unsigned lane = index().thread % kWave;
  Wave& wave = block->waves[index().thread / kWave];
  if (wave.arrived == 0) wave.operation = operation;
  if (wave.operation != operation) fail("lanes of a wave are at different operations");
  std::memcpy(wave.in + lane * in_bytes, in, in_bytes);
  const unsigned turn = wave.turn;
  if (++wave.arrived == kWave) {
    all(wave.in, wave.out);
    wave.arrived = 0;
    ++wave.turn;
    ++block->events;
  }
  while (wave.turn == turn) yield();
  return wave.out + lane * out_bytes;
}

void meet(unsigned barrier, unsigned threads) {
  Meeting& meeting = block->meetings[barrier];
  const unsigned turn = meeting.turn;
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    ++meeting.turn;
    ++block->events;
  }
  while (meeting.turn == turn) yield();
}

void arrive_at(Barrier& barrier, unsigned bytes) {
  barrier.bytes += bytes;
  --barrier.left;
  settle(barrier);
}
void wait_for(Barrier& barrier, unsigned parity) {
  while (barrier.phase % 2 == parity) yield();
}

void copy_box(char* to, const Map& map, int line, Barrier& barrier) {
  block->boxes.push_back({to, map, line, &barrier});
  ++block->events;
}
void copy_word(void* to, const void* from) { block->running->words.push_back({to, from}); }
void wait_for_words() {
  for (const Word& word : block->running->words) std::memcpy(word.to, word.from, 4);
  block->running->words.clear();
}

const char* launch(void (*kernel)(void*), void* arguments, const unsigned* grid, unsigned threads,
                   unsigned seed, char* shared, unsigned long long shared_bytes) {
  static std::string error;
  body = kernel;
  state = arguments;
  error.clear();
  for (unsigned number = 0; number < grid[0] * grid[1] * grid[2] && error.empty(); ++number) {
    Block mine;
    block = &mine;
    mine.threads = std::vector<Thread>(threads);
    mine.waves = std::vector<Wave>(threads / kWave);
    mine.random.seed(seed + number);
    std::memset(shared, 0xff, shared_bytes);  // NaN, and no number of a barrier
    for (unsigned i = 0; i < threads; ++i) {
      Thread& thread = mine.threads[i];
      const unsigned x = number % grid[0], y = number / grid[0] % grid[1];
      thread.index = {i, {x, y, number / grid[0] / grid[1]}, {grid[0], grid[1], grid[2]}};
      getcontext(&thread.beginning);
      thread.beginning.uc_stack.ss_sp = thread.stack.get();
      thread.beginning.uc_stack.ss_size = kStack;
      thread.beginning.uc_link = nullptr;
      makecontext(&thread.beginning, start, 0);
    }
    for (unsigned left = threads; left > 0 && mine.error.empty();) {
      const unsigned long long events = mine.events;
      const unsigned first = mine.random() % threads, step = mine.random() % 2 ? 1 : threads - 1;
      left = 0;
      for (unsigned i = 0, at = first; i < threads && mine.error.empty(); ++i) {
        Thread& thread = mine.threads[at];
        at = (at + step) % threads;
        if (thread.done) continue;
        ++left;
        resume(thread);
      }
      deliver_some(false);
      if (mine.events == events && left > 0) {
        if (mine.boxes.empty()) mine.error = "every thread waits";
        deliver_some(true);
      }
    }
    if (mine.error.empty() && !mine.boxes.empty()) mine.error = "copies are left behind";
    error = mine.error;
  }
  return error.empty() ? nullptr : error.c_str();
}

}  // namespace machine
