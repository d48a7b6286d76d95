#include "threads.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace vea {
namespace {

class Pool {
public:
    void run(int threads, int64_t tasks, const std::function<void(int64_t)>& task) {
        {
            std::lock_guard lock(mutex_);
            for (; workers_ < threads - 1; ++workers_) std::thread([this] { work(); }).detach();
            task_ = &task;
            tasks_ = tasks;
            next_ = 0;
            seats_ = threads - 1;
        }
        wake_.notify_all();
        take(task, tasks);
        std::unique_lock lock(mutex_);
        seats_ = 0;  // a worker that wakes up late finds the job closed
        done_.wait(lock, [this] { return active_ == 0; });
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    }

    std::mutex in_use;  // one job at a time

private:
    void take(const std::function<void(int64_t)>& task, int64_t tasks) {
        try {
            for (int64_t i = next_++; i < tasks; i = next_++) task(i);
        } catch (...) {  // no memory: the caller hears of it once all workers have let go of the task
            next_ = tasks;
            std::lock_guard lock(mutex_);
            failure_ = std::current_exception();
        }
    }

    void work() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return seats_ > 0; });
            --seats_;
            ++active_;
            const auto* task = task_;
            const int64_t tasks = tasks_;
            lock.unlock();
            take(*task, tasks);
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;  // guards all below but next_
    std::condition_variable wake_, done_;
    int workers_ = 0;  // threads that exist
    int seats_ = 0;    // workers that may still join the job
    int active_ = 0;   // workers inside the job
    const std::function<void(int64_t)>* task_ = nullptr;
    int64_t tasks_ = 0;
    std::exception_ptr failure_;
    std::atomic<int64_t> next_{0};
};

// A fork copies the pool without its threads, so a child process makes one of its own. Never freed: the workers
// sleep until the process ends.
Pool& pool() {
    static std::mutex mutex;
    static Pool* current = nullptr;
    static pid_t owner = 0;
    std::lock_guard lock(mutex);
    if (owner != getpid()) {
        current = new Pool;
        owner = getpid();
    }
    return *current;
}

// The threads of the OpenMP library that torch has loaded, if any: they are awake from torch's last operation, and a
// second set of threads would compete with them for the cores. All of its kinds know this entry of GCC's.
using Parallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

Parallel team_of_torch() {
    static const pid_t owner = getpid();
    static const auto found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return owner == getpid() ? found : nullptr;  // its threads do not survive a fork
}

struct Job {
    const std::function<void(int64_t)>& task;
    const int64_t tasks;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;

    void work() {
        try {
            for (int64_t i = next++; i < tasks; i = next++) task(i);
        } catch (...) {
            next = tasks;
            std::lock_guard lock(mutex);
            failure = std::current_exception();
        }
    }
};

}  // namespace

void parallel_for(int threads, int64_t tasks, const std::function<void(int64_t)>& task) {
    if (threads > tasks) threads = int(tasks);
    if (threads > 1) {
        if (const Parallel team = team_of_torch()) {
            Job job{task, tasks, 0, {}, {}};
            team([](void* data) { static_cast<Job*>(data)->work(); }, &job, unsigned(threads), 0);
            if (job.failure) std::rethrow_exception(job.failure);
            return;
        }
        Pool& shared = pool();
        std::unique_lock alone(shared.in_use, std::try_to_lock);
        if (alone) return shared.run(threads, tasks, task);
    }
    for (int64_t i = 0; i < tasks; ++i) task(i);  // small, or another thread of the program is using the pool
}

}  // namespace vea
