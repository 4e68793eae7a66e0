// Threads of execution that hand over to one another by themselves, and the faults that happen on their stacks.
#pragma once

#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <iterator>
#include <memory>

#include "fenced_pages.h"

namespace cuda_emulator {

constexpr size_t kStackBytes = 128 * 1024;

// Must stay where it is once it is started.
class Fibre {
 public:
  // Makes the stack. Every later round of `body` begins with a call of resume().
  void start(void (*body)());
  bool is_started() const { return stack_ != nullptr; }

  // Goes on where the fibre stopped, until it suspends itself or its round ends.
  void resume();

  // Called from within the fibre: goes back to who resumed it.
  void suspend();

  bool is_below_stack(const void* address) const;

 private:
  static void main();

  jmp_buf context_;
  std::unique_ptr<Pages> stack_;
  void (*body_)() = nullptr;
};

// While it lives, faults call `handle(signal, address)`, which does not return where it can deal with one.
class FaultHandler {
 public:
  explicit FaultHandler(void (*handle)(int, const void*));
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;
  ~FaultHandler();

 private:
  static constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};

  struct sigaction before_[std::size(kFaults)];
  stack_t stack_before_;
};

}  // namespace cuda_emulator
