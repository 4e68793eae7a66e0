// makecontext gives a fibre its stack; after that setjmp and longjmp switch, which need no system call.
#include "fibres.h"

#include <ucontext.h>

namespace cuda_emulator {

namespace {

jmp_buf resumer;
Fibre* starting = nullptr;
void (*fault_handle)(int, const void*) = nullptr;

// That of the fibre may be what overflowed.
alignas(16) unsigned char fault_stack[64 * 1024];

void on_fault(int signal, siginfo_t* info, void*) {
  fault_handle(signal, info->si_addr);
  std::signal(signal, SIG_DFL);  // not the fibre's doing: it happens again, and ends the process
}

}  // namespace

void Fibre::main() {
  Fibre* const self = starting;
  for (;;) {
    self->suspend();
    self->body_();
  }
}

void Fibre::start(void (*body)()) {
  stack_ = std::make_unique<Pages>(kStackBytes);
  body_ = body;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_->begin();
  context.uc_stack.ss_size = stack_->size();
  context.uc_link = nullptr;
  makecontext(&context, main, 0);
  starting = this;
  if (_setjmp(resumer) == 0) setcontext(&context);
}

void Fibre::resume() {
  if (_setjmp(resumer) == 0) _longjmp(context_, 1);
}

void Fibre::suspend() {
  if (_setjmp(context_) == 0) _longjmp(resumer, 1);
}

bool Fibre::is_below_stack(const void* address) const {
  const auto* place = static_cast<const unsigned char*>(address);
  return place < stack_->begin() && place >= stack_->begin() - page_bytes();
}

FaultHandler::FaultHandler(void (*handle)(int, const void*)) {
  fault_handle = handle;
  stack_t stack{};
  stack.ss_sp = fault_stack;
  stack.ss_size = sizeof(fault_stack);
  sigaltstack(&stack, &stack_before_);
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // it is left through longjmp: the signal must stay open
  for (size_t index = 0; index < std::size(kFaults); ++index) sigaction(kFaults[index], &action, &before_[index]);
}

FaultHandler::~FaultHandler() {
  for (size_t index = 0; index < std::size(kFaults); ++index) sigaction(kFaults[index], &before_[index], nullptr);
  sigaltstack(&stack_before_, nullptr);
}

}  // namespace cuda_emulator
