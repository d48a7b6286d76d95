// Loops over threads: on torch's own where its OpenMP library can be found in the process, else on a small pool of ours,
// whose threads sleep when there is nothing to do. We link no OpenMP ourselves: that would bring a second runtime beside
// the one in torch's wheel.
#pragma once

#include <cstdint>
#include <functional>

namespace vea {

// Calls task(0) .. task(tasks - 1) on at most `threads` threads, the caller among them, and returns when all are done.
// Which thread runs a task is open, so tasks must write to places of their own. What a task throws
// reaches the caller, after the tasks that had begun.
void parallel_for(int threads, int64_t tasks, const std::function<void(int64_t)>& task);

// Says that this process was forked before this library was loaded, so it could not notice: torch's threads are gone.
void leave_torchs_threads();

}  // namespace vea
