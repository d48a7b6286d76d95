// Memory of picture size. The first touch of 3 MB in pages of 4 KB can cost more than all work on it; where the system
// offers pages of 2 MB, these take them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace vea {

using Pages = std::shared_ptr<uint8_t>;

// `size` bytes, aligned to 64; zeros or anything.
inline Pages allocate_pages(size_t size) {
#ifdef __linux__
    constexpr size_t kHuge = size_t(1) << 21;
    if (size >= kHuge / 2) {
        const size_t whole = (size + kHuge - 1) / kHuge * kHuge, reserved = whole + kHuge;
        void* const start = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) throw std::bad_alloc();
        const auto aligned = (reinterpret_cast<uintptr_t>(start) + kHuge - 1) / kHuge * kHuge;
        madvise(reinterpret_cast<void*>(aligned), whole, MADV_HUGEPAGE);  // a wish; refused, it is ordinary memory
        return Pages(reinterpret_cast<uint8_t*>(aligned), [start, reserved](uint8_t*) { munmap(start, reserved); });
    }
#endif
    constexpr std::align_val_t kAlign{64};
    return Pages(static_cast<uint8_t*>(operator new(size, kAlign)), [](uint8_t* p) { operator delete(p, kAlign); });
}

}  // namespace vea
