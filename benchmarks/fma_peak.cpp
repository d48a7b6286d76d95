// Multiply-adds on registers alone: the most that the cores can do. Compiled for the machine it runs on.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#ifdef __AVX512F__
constexpr int kWidth = 16;
#else
constexpr int kWidth = 8;
#endif
typedef float Vector __attribute__((vector_size(4 * kWidth)));

constexpr int kChains = 12;  // independent ones, enough to cover the latency of two units

static float chains(int64_t rounds) {
    Vector sum[kChains] = {};
    for (int i = 0; i < kChains; ++i) sum[i] += float(i);
    const Vector factor = Vector{} + 0.999f, added = Vector{} + 0.001f;
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factor + added;
    }
    float total = 0;
    for (const Vector& one : sum) total += one[0];
    return total;
}

struct Job {
    int64_t rounds;
    std::atomic<float> result{0};
};

static void work(void* data) {
    auto* job = static_cast<Job*>(data);
    job->result = chains(job->rounds);  // whichever is last: it only keeps the work from being left out
}

// Does `operations` multiplications and additions, spread over the threads: those of torch's OpenMP library, since they
// stay awake for a while after each operation, and threads of our own would have to share the cores with them.
extern "C" float multiply_add(int64_t operations, int threads) {
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    Job job{operations / (2 * kWidth * kChains * threads)};
    if (const auto team = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"))) {
        team(work, &job, unsigned(threads), 0);
    } else {
        std::vector<std::thread> pool;
        for (int i = 1; i < threads; ++i) pool.emplace_back(work, &job);
        work(&job);
        for (auto& thread : pool) thread.join();
    }
    return job.result;
}
