// Checks of op arguments that host files share; the text is that of ops/_checks.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <initializer_list>
#include <sstream>

namespace mrcnn {

// An argument of an op.
struct Argument {
  const char* name;
  const at::Tensor& tensor;
};

inline void check_same_device(const char* op, std::initializer_list<Argument> arguments) {
  const c10::Device device = arguments.begin()->tensor.device();
  const auto is_there = [&](const Argument& argument) { return argument.tensor.device() == device; };
  if (std::all_of(arguments.begin(), arguments.end(), is_there)) return;
  std::ostringstream places;
  for (const Argument& argument : arguments) {
    places << (&argument == arguments.begin() ? "" : ", ") << argument.name << " on " << argument.tensor.device();
  }
  TORCH_CHECK_VALUE(false, op, ": all tensors must lie on one device, got ", places.str());
}

}  // namespace mrcnn
