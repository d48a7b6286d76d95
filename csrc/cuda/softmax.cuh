// Parts of a softmax, and how they are joined.
#pragma once

#include "../numerics.h"

namespace vea::cuda {
namespace {

// exp(x) to 2 + 1.2 |x| units in the last place, numbers below 1e-38 as zero: for x < 0 within 2e-7 of exp(0).
__device__ float exponential(float x) {
#ifdef __CUDA_ARCH__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.4426950408889634f));
    return power;
#else
    return expf(x);
#endif
}

// What to subtract from scores whose maximum is `largest` before they are exponentiated.
__device__ float shift_of(float largest) { return largest == minus_infinity() ? 0 : largest; }

// Maximum and sum of exponentials of N sets of scores, of all together. A NaN passes the maximum and stays in the sum.
template <int N>
__device__ float2 joined(const float2 (&sets)[N]) {
    float largest = sets[0].x, sum = 0;
#pragma unroll
    for (int i = 1; i < N; ++i) largest = fmaxf(largest, sets[i].x);
    const float shift = shift_of(largest);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += sets[i].y * exponential(sets[i].x - shift);
    return make_float2(largest, sum);
}

// The same over neighbouring lanes: those that differ in the bits from `from` to below `end`.
__device__ float2 joined_over_lanes(float2 mine, int from, int end) {
    float largest = mine.x;
    for (int step = from; step < end; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    float sum = mine.y * exponential(mine.x - shift_of(largest));
    for (int step = from; step < end; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return make_float2(largest, sum);
}

__device__ float warp_max(float value) {
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

__device__ float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

}  // namespace
}  // namespace vea::cuda
