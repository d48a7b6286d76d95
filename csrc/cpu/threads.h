// A small pool of threads of our own. Linking OpenMP would bring a second runtime beside torch's bundled one,
// each with its own spinning workers; ours sleep when there is nothing to do.
#pragma once

#include <cstdint>
#include <functional>

namespace vea {

// Calls task(0) .. task(tasks - 1) on at most `threads` threads, the caller among them, and returns when all are done.
// Which thread runs a task is open, so tasks must write to places of their own. Tasks must not throw.
void parallel_for(int threads, int64_t tasks, const std::function<void(int64_t)>& task);

}  // namespace vea
