// Memory for a kernel's arguments that ends at a fence: what an access just beyond an array hits.
#include <cstdint>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "fenced_pages.h"

namespace {

constexpr size_t kAlignment = 16;
constexpr unsigned char kUntouched = 0xa5;

struct Fenced {
  std::unique_ptr<cuda_emulator::Pages> pages;
  size_t bytes;
};

std::unordered_map<unsigned char*, Fenced> all_fenced;

bool is_untouched(const unsigned char* begin, const unsigned char* end) {
  while (begin < end && *begin == kUntouched) ++begin;
  return begin == end;
}

}  // namespace

extern "C" {

// A copy of `bytes` at `source`, as far from a multiple of 16 as it is. Ends less than 16 bytes before the fence.
void* fenced_copy(const void* source, size_t bytes) {
  const size_t phase = reinterpret_cast<uintptr_t>(source) % kAlignment;
  auto pages = std::make_unique<cuda_emulator::Pages>(phase + bytes);
  std::memset(pages->begin(), kUntouched, pages->size());
  unsigned char* copy = pages->end() - (phase + bytes + kAlignment - 1) / kAlignment * kAlignment + phase;
  if (bytes > 0) std::memcpy(copy, source, bytes);
  all_fenced[copy] = {std::move(pages), bytes};
  return copy;
}

// Copies back and frees. Returns 0 where bytes before or behind the copy were written.
int fenced_return(void* copy, void* destination) {
  const auto entry = all_fenced.find(static_cast<unsigned char*>(copy));
  const auto& [begin, fenced] = *entry;
  const bool clean =
      is_untouched(fenced.pages->begin(), begin) && is_untouched(begin + fenced.bytes, fenced.pages->end());
  if (fenced.bytes > 0) std::memcpy(destination, begin, fenced.bytes);
  all_fenced.erase(entry);
  return clean ? 1 : 0;
}
}
