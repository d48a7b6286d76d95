// Enough of CUDA to run this project's kernels on a CPU: one block at a time, a fiber per thread.
//
// Fibers switch at barriers and warp exchanges only, in an order drawn anew each round, and blocks run in random order:
// a kernel that relies on an order CUDA does not promise gives wrong numbers here too. A barrier that not all threads
// reach ends the program. Blocks that are launched together meet at the grid's barrier; shared memory does not outlast
// it. Speed, and races between two barriers of one thread, stay out of sight.
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

struct dim3 {
    explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
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
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
enum { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
    *value = 2;
    return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

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
inline Barrier grid;

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

inline void start(Block& b, unsigned threads, const std::function<void()>& body) {
    b.body = body;
    b.fibers.resize(threads);
    b.stacks.resize(threads);
    b.done.assign(threads, false);
    b.warps.assign(threads / 32, {});
    b.all = {};
    b.exchange.assign(threads, 0);
    for (unsigned i = 0; i < threads; ++i) {
        b.stacks[i].resize(1 << 17);
        getcontext(&b.fibers[i]);
        b.fibers[i].uc_stack.ss_sp = b.stacks[i].data();
        b.fibers[i].uc_stack.ss_size = b.stacks[i].size();
        b.fibers[i].uc_link = &b.scheduler;
        makecontext(&b.fibers[i], enter, 0);
    }
}

// Runs a block until its threads are done or none gets any further; false: they had not moved at all.
inline bool run(Block& b, unsigned index, std::mt19937& random) {
    block = &b;
    blockIdx.x = index % gridDim.x, blockIdx.y = index / gridDim.x % gridDim.y, blockIdx.z = index / gridDim.x / gridDim.y;
    std::vector<int> order(b.done.size());
    std::iota(order.begin(), order.end(), 0);
    bool moved = false;
    do {
        std::shuffle(order.begin(), order.end(), random);
        b.progress = false;
        for (const int i : order) {
            if (b.done[i]) continue;
            b.current = i;
            threadIdx.x = i;
            swapcontext(&b.scheduler, &b.fibers[i]);
        }
        moved |= b.progress;
    } while (b.progress);
    return moved;
}

inline bool done(const Block& b) { return std::count(b.done.begin(), b.done.end(), false) == 0; }

inline void stuck() {
    std::fprintf(stderr, "emulation: threads wait at different barriers\n");
    std::abort();
}

inline std::vector<unsigned> shuffled(unsigned blocks, std::mt19937& random) {
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    return order;
}

template <class Body>
void launch(unsigned blocks, unsigned threads, const Body& body) {
    static std::mt19937 random(0);
    static Block b;  // its stacks are kept from block to block
    blockDim.x = threads, gridDim = dim3(blocks);
    for (const unsigned i : shuffled(blocks, random)) {
        start(b, threads, body);
        run(b, i, random);
        if (!done(b)) stuck();
    }
}

template <class Body>
void launch_together(dim3 of, unsigned threads, const Body& body) {
    static std::mt19937 random(0);
    static std::vector<Block> all;
    const unsigned blocks = of.x * of.y * of.z;
    if (all.size() < blocks) all.resize(blocks);
    blockDim.x = threads, gridDim = of;
    grid = {};
    for (unsigned i = 0; i < blocks; ++i) start(all[i], threads, body);
    while (!std::all_of(all.begin(), all.begin() + blocks, done)) {
        bool moved = false;
        for (const unsigned i : shuffled(blocks, random)) moved |= run(all[i], i, random);
        if (!moved) stuck();
    }
}

}  // namespace emulation

enum { cudaLaunchAttributeCooperative = 1 };
struct cudaLaunchAttribute {
    int id;
    struct {
        int cooperative;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
    if (config->numAttrs != 1 || config->attrs->val.cooperative != 1) return cudaErrorInvalidValue;
    emulation::launch_together(config->gridDim, config->blockDim.x, [&] { kernel(arguments...); });
    return cudaSuccess;
}

inline void __syncthreads() { emulation::wait(emulation::block->all, int(blockDim.x)); }
inline void __syncwarp() { emulation::wait_for_warp(); }

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
template <class T>
T __ldcg(const T* from) {
    if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) std::abort();  // a GPU faults on misaligned vectors
    return *from;
}
template <class T>
T __ldcs(const T* from) {
    return __ldcg(from);
}
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
