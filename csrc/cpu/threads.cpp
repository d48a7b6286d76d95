#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace vea {
namespace {

// The tasks of one loop, a run of them for each thread: what lies together stays on one core, where torch's operation before
// this one, which shares its work out in the same way, may have left it in the cache. Who is done helps the others.
class Shares {
public:
    Shares(int threads, int64_t tasks, const std::function<void(int64_t)>& task)
        : task_(task), tasks_(tasks), taken_(threads) {}

    void work(int thread) {
        const int64_t shares = int64_t(taken_.size());
        try {
            for (int64_t i = 0; i < shares; ++i) {
                const int64_t share = (thread + i) % shares;
                const int64_t begin = share * tasks_ / shares, end = (share + 1) * tasks_ / shares;
                for (int64_t t = begin + taken_[share].count++; t < end && !failed_; t = begin + taken_[share].count++) task_(t);
            }
        } catch (...) {  // no memory: the caller hears of it once all threads have let go of the task
            failed_ = true;
            std::lock_guard lock(mutex_);
            failure_ = std::current_exception();
        }
    }

    void finish() {
        if (failure_) std::rethrow_exception(failure_);
    }

private:
    struct alignas(64) Taken {
        std::atomic<int64_t> count{0};
    };

    const std::function<void(int64_t)>& task_;
    const int64_t tasks_;
    std::vector<Taken> taken_;
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
    std::exception_ptr failure_;
};

class Pool {
public:
    void run(int threads, Shares& shares) {
        {
            std::lock_guard lock(mutex_);
            for (; workers_ < threads - 1; ++workers_) std::thread([this] { work(); }).detach();
            shares_ = &shares;
            seats_ = threads - 1;
        }
        wake_.notify_all();
        shares.work(0);
        std::unique_lock lock(mutex_);
        seats_ = 0;  // a worker that wakes up late finds the job closed
        done_.wait(lock, [this] { return active_ == 0; });
    }

    std::mutex in_use;  // one job at a time

private:
    void work() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return seats_ > 0; });
            const int thread = seats_--;
            ++active_;
            Shares* shares = shares_;
            lock.unlock();
            shares->work(thread);
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;  // guards all below
    std::condition_variable wake_, done_;
    int workers_ = 0;  // threads that exist
    int seats_ = 0;    // workers that may still join the job
    int active_ = 0;   // workers inside the job
    Shares* shares_ = nullptr;
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
// second set of threads would compete with them for the cores. All of its kinds know GCC's way to start them.
struct Team {
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
    int (*thread)();
};

template <class Function>
void find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

std::atomic<bool> forked{false};
// From the moment on that the library is loaded: the parent may fork before it runs anything of ours.
const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

const Team* team_of_torch() {
    static const Team team = [] {
        Team found;
        find("GOMP_parallel", found.parallel);
        find("omp_get_thread_num", found.thread);
        return found;
    }();
    return !forked && team.parallel && team.thread ? &team : nullptr;
}

}  // namespace

void leave_torchs_threads() { forked = true; }

void parallel_for(int threads, int64_t tasks, const std::function<void(int64_t)>& task) {
    if (threads > tasks) threads = int(tasks);
    if (threads > 1) {
        Shares shares(threads, tasks, task);
        if (const Team* team = team_of_torch()) {
            team->parallel([](void* data) { static_cast<Shares*>(data)->work(team_of_torch()->thread()); }, &shares,
                           unsigned(threads), 0);
            return shares.finish();
        }
        Pool& shared = pool();
        std::unique_lock alone(shared.in_use, std::try_to_lock);
        if (alone) {
            shared.run(threads, shares);
            return shares.finish();
        }
    }
    for (int64_t i = 0; i < tasks; ++i) task(i);  // small, or another thread of the program is using the pool
}

}  // namespace vea
