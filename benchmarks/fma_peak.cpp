// Multiply-adds on registers alone: the most that the cores can do. Compiled for the machine it runs on.
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

// Does `operations` multiplications and additions, spread over the threads.
extern "C" float multiply_add(int64_t operations, int threads) {
    const int64_t rounds = operations / (2 * kWidth * kChains * threads);
    std::vector<float> result(threads);
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back([&, i] { result[i] = chains(rounds); });
    result[0] = chains(rounds);
    for (auto& thread : pool) thread.join();
    float total = 0;
    for (float one : result) total += one;
    return total;
}
