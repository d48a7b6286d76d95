// Enough of CUDA to run this project's kernels on a CPU: one block at a time, a fiber per thread.
//
// Fibers switch at barriers and warp exchanges only, in an order drawn anew each round, and blocks run in random order:
// a kernel that relies on an order CUDA does not promise gives wrong numbers here too. A barrier that not all threads
// reach ends the program. Speed, and races between two barriers of one thread, stay out of sight.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // one block at a time; what the last block left in it stays, as on a GPU

struct dim3_ {
    unsigned x;
};
struct float2 {
    float x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}

namespace emulation {

struct Barrier {
    int arrived = 0, generation = 0;
};

struct Block {
    std::vector<ucontext_t> fibers;
    std::vector<std::vector<char>> stacks;
    std::vector<char> done;
    std::vector<Barrier> warps;
    Barrier all;
    std::vector<uint64_t> exchange;  // what each thread shows to its warp
    ucontext_t scheduler;
    int current = 0;
    bool progress = false;
    std::function<void()> body;
};

inline Block* block = nullptr;
inline dim3_ thread_index, block_index, block_size;

inline void wait(Barrier& barrier, int members) {
    Block& b = *block;
    const int generation = barrier.generation, self = b.current;
    b.progress = true;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) swapcontext(&b.fibers[self], &b.scheduler);
    b.progress = true;
}

inline void wait_for_warp() { wait(block->warps[block->current / 32], 32); }

template <class T>
T from_lane(T value, int lane) {
    Block& b = *block;
    memcpy(&b.exchange[b.current], &value, sizeof value);
    wait_for_warp();
    memcpy(&value, &b.exchange[b.current / 32 * 32 + lane], sizeof value);
    wait_for_warp();
    return value;
}

inline void enter() {
    Block& b = *block;
    b.body();
    b.done[b.current] = true;
    b.progress = true;
    swapcontext(&b.fibers[b.current], &b.scheduler);
}

inline void run_block(int threads, const std::function<void()>& body, std::mt19937& random) {
    static Block b;  // its stacks are kept from block to block
    block = &b;
    b.body = body;
    b.fibers.resize(threads);
    b.stacks.resize(threads);
    b.done.assign(threads, false);
    b.warps.assign(threads / 32, {});
    b.all = {};
    b.exchange.assign(threads, 0);
    for (int i = 0; i < threads; ++i) {
        b.stacks[i].resize(1 << 17);
        getcontext(&b.fibers[i]);
        b.fibers[i].uc_stack.ss_sp = b.stacks[i].data();
        b.fibers[i].uc_stack.ss_size = b.stacks[i].size();
        b.fibers[i].uc_link = &b.scheduler;
        makecontext(&b.fibers[i], enter, 0);
    }
    std::vector<int> order(threads);
    std::iota(order.begin(), order.end(), 0);
    while (std::count(b.done.begin(), b.done.end(), true) < threads) {
        std::shuffle(order.begin(), order.end(), random);
        b.progress = false;
        for (const int i : order) {
            if (b.done[i]) continue;
            b.current = i;
            thread_index.x = i;
            swapcontext(&b.scheduler, &b.fibers[i]);
        }
        if (!b.progress) {
            std::fprintf(stderr, "emulation: threads wait at different barriers\n");
            std::abort();
        }
    }
}

template <class Body>
void launch(unsigned blocks, unsigned threads, const Body& body) {
    static std::mt19937 random(0);
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    block_size.x = threads;
    for (const unsigned i : order) {
        block_index.x = i;
        run_block(int(threads), body, random);
    }
}

}  // namespace emulation

#define threadIdx emulation::thread_index
#define blockIdx emulation::block_index
#define blockDim emulation::block_size

inline void __syncthreads() { emulation::wait(emulation::block->all, int(blockDim.x)); }
inline void __syncwarp() { emulation::wait_for_warp(); }
inline void __threadfence() {}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulation::from_lane(value, int(threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int delta) {
    const int lane = int(threadIdx.x % 32);
    return emulation::from_lane(value, lane + delta < 32 ? lane + delta : lane);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
    return emulation::from_lane(value, lane);
}
inline unsigned __ballot_sync(unsigned, bool value) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned(emulation::from_lane(value, lane)) << lane;
    return bits;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned atomicAdd(unsigned* to, unsigned value) {
    const unsigned old = *to;
    *to += value;
    return old;
}
inline unsigned atomicInc(unsigned* to, unsigned limit) {
    const unsigned old = *to;
    *to = old >= limit ? 0 : old + 1;
    return old;
}
template <class T>
T __ldg(const T* from) {
    if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) std::abort();  // a GPU faults on misaligned vectors
    return *from;
}
template <class T>
T __ldcg(const T* from) {
    if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) std::abort();
    return *from;
}
inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
