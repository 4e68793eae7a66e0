// The blocks, fibres and meetings of cuda_emulator.h. For one thread of the operating system.
#include "cuda_emulator.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <vector>

#include "fenced_pages.h"
#include "fibres.h"
#include "launch_limits.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {

namespace {

// As float, double, half and bfloat16 each a NaN, as an integer a large number.
constexpr unsigned char kSpoiled[] = {0xf1, 0x7f};

void spoil(unsigned char* memory, size_t bytes) {
  for (size_t index = 0; index < bytes; ++index) memory[index] = kSpoiled[index % sizeof(kSpoiled)];
}

// Where threads wait for one another. The place is that of the first to come.
struct Meeting {
  unsigned arrived = 0;
  uint64_t number = 0;  // of those that are over
  const char* operation = nullptr;
  const char* file = nullptr;
  int line = 0;
};

enum class State { kReady, kWaiting, kLeft };

struct Thread {
  Fibre fibre;
  State state = State::kLeft;
  unsigned rank = 0;
  uint3 index{};
  Meeting* meeting = nullptr;  // while it waits
  uint64_t number = 0;         // of the meeting it waits for
};

struct Warp {
  Meeting meeting;
  // Two sets in turn: a lane may come to the next operation while others still read what the last one gave them.
  uint64_t values[2][kWarp];
};

struct Emulator {
  bool reverse = false;
  char error[1200] = "";
  cudaError_t status = cudaSuccess;

  // The launch at work.
  const Launch* launch = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<Thread> threads;  // kept from launch to launch
  std::vector<Warp> warps;
  unsigned num_threads = 0;
  Meeting barrier;
  int votes = 0, last_votes = 0;     // of the barrier that gathers, and of the last one that was over
  std::vector<void*> shared_arrays;  // that the block has asked for
  size_t static_bytes = 0;
  std::unique_ptr<Pages> dynamic_pages;
  Thread* current = nullptr;  // null outside of the kernel
  jmp_buf failure;
};

Emulator emulator;

void run_thread() {
  (*emulator.body)();
  emulator.current->state = State::kLeft;
}

void resume(Thread& thread) {
  emulator.current = &thread;
  threadIdx = thread.index;
  thread.state = State::kReady;
  thread.fibre.resume();
  emulator.current = nullptr;
}

unsigned in_order(unsigned index, unsigned count) { return emulator.reverse ? count - 1 - index : index; }

bool can_run(const Thread& thread) {
  return thread.state == State::kReady || (thread.state == State::kWaiting && thread.meeting->number != thread.number);
}

// Runs the lanes of a warp until none can go on. Returns whether any did.
bool run_warp(unsigned warp) {
  bool any = false, moved = true;
  while (moved) {
    moved = false;
    for (unsigned index = 0; index < kWarp; ++index) {
      const unsigned rank = warp * kWarp + in_order(index, kWarp);
      if (rank >= emulator.num_threads || !can_run(emulator.threads[rank])) continue;
      resume(emulator.threads[rank]);
      any = moved = true;
    }
  }
  return any;
}

// Nobody can go on, and not all have left: names one who waits and one whom it waits for.
[[noreturn]] void fail_for_deadlock(Thread& waiting) {
  const Meeting& meeting = *waiting.meeting;
  unsigned rank = &meeting == &emulator.barrier ? 0 : waiting.rank / kWarp * kWarp;
  while (emulator.threads[rank].state == State::kWaiting && emulator.threads[rank].meeting == &meeting) ++rank;
  const Thread& other = emulator.threads[rank];
  char whereabouts[256] = "has left the kernel";
  if (other.state == State::kWaiting) {
    std::snprintf(whereabouts, sizeof(whereabouts), "waits at %s (%s:%d)", other.meeting->operation,
                  other.meeting->file, other.meeting->line);
  }
  emulator.current = &waiting;
  fail("it waits for ever at %s (%s:%d), since thread (%u, %u, %u) %s", meeting.operation, meeting.file, meeting.line,
       other.index.x, other.index.y, other.index.z, whereabouts);
}

void run_block() {
  const unsigned num_warps = static_cast<unsigned>(emulator.warps.size());
  emulator.shared_arrays.clear();
  emulator.static_bytes = 0;
  emulator.barrier = {};
  emulator.votes = 0;
  for (Warp& warp : emulator.warps) warp.meeting = {};
  for (unsigned rank = 0; rank < emulator.num_threads; ++rank) emulator.threads[rank].state = State::kReady;
  spoil(emulator.dynamic_pages->begin(), emulator.dynamic_pages->size());
  for (bool any = true; any;) {
    any = false;
    for (unsigned index = 0; index < num_warps; ++index) any |= run_warp(in_order(index, num_warps));
  }
  for (unsigned rank = 0; rank < emulator.num_threads; ++rank) {
    if (emulator.threads[rank].state != State::kLeft) fail_for_deadlock(emulator.threads[rank]);
  }
}

void prepare_threads(dim3 block) {
  emulator.num_threads = block.x * block.y * block.z;
  emulator.warps.assign((emulator.num_threads + kWarp - 1) / kWarp, Warp{});
  if (emulator.threads.empty()) emulator.threads.resize(kMaxThreads);  // at once: fibres know where they live
  for (unsigned rank = 0; rank < emulator.num_threads; ++rank) {
    Thread& thread = emulator.threads[rank];
    thread.rank = rank;
    thread.index = {rank % block.x, rank / block.x % block.y, rank / (block.x * block.y)};
    if (!thread.fibre.is_started()) thread.fibre.start(run_thread);
  }
}

void run_blocks() {
  const dim3 grid = emulator.launch->grid;
  const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  for (uint64_t index = 0; index < count; ++index) {
    const uint64_t place = emulator.reverse ? count - 1 - index : index;
    blockIdx = {static_cast<unsigned>(place % grid.x), static_cast<unsigned>(place / grid.x % grid.y),
                static_cast<unsigned>(place / grid.x / grid.y)};
    run_block();
  }
}

void handle_fault(int signal, const void* address) {
  if (emulator.current == nullptr) return;
  if (signal != SIGSEGV && signal != SIGBUS) {
    fail("an index out of bounds, an overflow, a shift too far, or a division by zero");
  }
  if (emulator.current->fibre.is_below_stack(address)) fail("its stack needs more than %zu KiB", kStackBytes / 1024);
  fail("an access to %p, which no array holds", address);
}

// Adds the thread at work to those who have come. Returns whether it is the last.
bool arrive(Meeting& meeting, unsigned expected, const char* operation, const char* file, int line) {
  if (meeting.arrived == 0) {
    meeting.operation = operation;
    meeting.file = file;
    meeting.line = line;
  } else if (meeting.line != line || std::strcmp(meeting.operation, operation) != 0 ||
             std::strcmp(meeting.file, file) != 0) {
    fail("it comes to %s (%s:%d) while others wait at %s (%s:%d)", operation, file, line, meeting.operation,
         meeting.file, meeting.line);
  }
  if (++meeting.arrived < expected) return false;
  meeting.arrived = 0;
  ++meeting.number;
  return true;
}

void wait(Meeting& meeting) {
  emulator.current->state = State::kWaiting;
  emulator.current->meeting = &meeting;
  emulator.current->number = meeting.number;
  emulator.current->fibre.suspend();
}

}  // namespace

void fail(const char* format, ...) {
  char place[160] = "", text[768];
  if (emulator.current != nullptr) {
    const uint3 thread = emulator.current->index;
    std::snprintf(place, sizeof(place), ", block (%u, %u, %u), thread (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z,
                  thread.x, thread.y, thread.z);
  }
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof(text), format, values);
  va_end(values);
  std::snprintf(emulator.error, sizeof(emulator.error), "kernel %s%s: %s", emulator.launch->name, place, text);
  emulator.status = cudaErrorLaunchFailure;
  _longjmp(emulator.failure, 1);
}

int meet_block(const char* operation, int value, const char* file, int line) {
  emulator.votes += value != 0 ? 1 : 0;
  if (arrive(emulator.barrier, emulator.num_threads, operation, file, line)) {
    emulator.last_votes = emulator.votes;
    emulator.votes = 0;
  } else {
    wait(emulator.barrier);
  }
  return emulator.last_votes;
}

const uint64_t* meet_warp(const char* operation, unsigned mask, uint64_t value, const char* file, int line) {
  if (mask != 0xffffffffu) fail("%s (%s:%d) with the mask %#x, not with the whole warp", operation, file, line, mask);
  if (emulator.num_threads % kWarp != 0) {
    fail("%s (%s:%d) in a block of %u threads, which are no whole warps", operation, file, line, emulator.num_threads);
  }
  Warp& warp = emulator.warps[emulator.current->rank / kWarp];
  uint64_t* values = warp.values[warp.meeting.number % 2];
  values[lane()] = value;
  if (!arrive(warp.meeting, kWarp, operation, file, line)) wait(warp.meeting);
  return values;
}

unsigned lane() { return emulator.current->rank % kWarp; }

void* shared(void* storage, size_t bytes) {
  for (const void* known : emulator.shared_arrays) {
    if (known == storage) return storage;
  }
  emulator.shared_arrays.push_back(storage);
  emulator.static_bytes += bytes;
  if (emulator.static_bytes + emulator.launch->shared_bytes > kSharedBytes) {
    fail("it asks for more than the 48 KiB of shared memory that a block has");
  }
  spoil(static_cast<unsigned char*>(storage), bytes);
  return storage;
}

void* dynamic_shared() { return emulator.dynamic_pages->end() - (emulator.launch->shared_bytes + 15) / 16 * 16; }

void run(const Launch& launch, const std::function<void()>& body) {
  if (emulator.status != cudaSuccess) return;
  emulator.launch = &launch;
  emulator.body = &body;
  blockDim = launch.block;
  gridDim = launch.grid;
  const FaultHandler handler(handle_fault);
  if (_setjmp(emulator.failure) == 0) {
    if (const char* reason = objection(launch)) fail("%s", reason);
    emulator.dynamic_pages = std::make_unique<Pages>(launch.shared_bytes);
    prepare_threads(launch.block);
    run_blocks();
  } else {  // the fibres may stand somewhere in the kernel
    emulator.current = nullptr;
    emulator.threads.clear();
  }
}

cudaError_t last_error() { return emulator.status; }

extern "C" {

// 0: fibres and blocks in ascending order; 1: in descending order.
void cuda_emulator_set_order(int reverse) { emulator.reverse = reverse != 0; }

// What ended a launch, or an empty text.
const char* cuda_emulator_error() { return emulator.error; }

void cuda_emulator_clear_error() {
  emulator.status = cudaSuccess;
  emulator.error[0] = '\0';
}
}

}  // namespace cuda_emulator
