// Runs the thread pool hard, for ThreadSanitizer: many small jobs, of changing widths, from several callers at once.
// With -DRACE the tasks write to one place without a lock, which ThreadSanitizer must report.
#include "cpu/threads.h"

#include <cstdio>
#include <thread>
#include <vector>

namespace {

int64_t shared = 0;

bool sums_are_right(int threads, int64_t tasks) {
    std::vector<int64_t> squares(tasks);  // plain memory: the pool must make the tasks' writes visible
    vea::parallel_for(threads, tasks, [&](int64_t i) {
        squares[i] = i * i;
#ifdef RACE
        ++shared;
#endif
    });
    int64_t sum = 0;
    for (const int64_t square : squares) sum += square;
    return sum == (tasks - 1) * tasks * (2 * tasks - 1) / 6;
}

}  // namespace

int main() {
    std::vector<int> wrong(3);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller) {
        callers.emplace_back([&, caller] {
            for (int job = 0; job < 2000; ++job) wrong[caller] += !sums_are_right(1 + (job + caller) % 5, job % 23);
        });
    }
    for (std::thread& caller : callers) caller.join();
    const int total = wrong[0] + wrong[1] + wrong[2];
    std::printf("%d jobs wrong, %lld in common\n", total, static_cast<long long>(shared));
    return total != 0;
}
