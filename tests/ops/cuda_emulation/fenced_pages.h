// Memory that ends where the process may not go, so that an access beyond it is seen.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace cuda_emulator {

inline size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Whole pages between two that fault when they are touched.
class Pages {
 public:
  explicit Pages(size_t bytes) {
    const size_t page = page_bytes();
    bytes_ = (bytes + page - 1) / page * page;
    void* base = mmap(nullptr, bytes_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    begin_ = static_cast<unsigned char*>(base) + page;
    if (base == MAP_FAILED || mprotect(begin_, bytes_, PROT_READ | PROT_WRITE) != 0) {
      std::perror("CUDA emulator: no memory");
      std::abort();
    }
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { munmap(begin_ - page_bytes(), bytes_ + 2 * page_bytes()); }

  unsigned char* begin() const { return begin_; }
  unsigned char* end() const { return begin_ + bytes_; }
  size_t size() const { return bytes_; }

 private:
  unsigned char* begin_;
  size_t bytes_;
};

}  // namespace cuda_emulator
