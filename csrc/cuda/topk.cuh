// Top-k of one row by one thread block: radix selection of the k-th largest value, eight bits at a time, then one ordered
// pass that breaks ties towards the lower index. No sorting, no memory but 1 KiB of shared counters.
#pragma once

#include "../numerics.h"

namespace vea::cuda {
namespace {

struct TopkShared {
    unsigned histogram[256];
    unsigned digit;      // the k-th largest value's next digit
    unsigned remaining;  // how many of those with this digit belong to the top k; 0: all of them
    unsigned warp_ties[32];
};

// value(i) must give the same number each time; NaN is never chosen. All threads of the block must call.
template <class Value>
__device__ void choose_topk(Value value, int64_t n, int64_t k, bool* chosen, TopkShared& shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    unsigned prefix = 0, known = 0;  // the digits found so far, and which bits they cover
    unsigned remaining = unsigned(k);
    bool all = k == 0;  // nothing to select: k = 0 marks none; fewer than k numbers mark all
    for (int shift = 24; shift >= 0 && !all; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) shared.histogram[i] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            const float v = value(i);
            const unsigned key = sort_key(v);
            if (!is_nan(v) && (key & known) == prefix) atomicAdd(&shared.histogram[key >> shift & 255], 1u);
        }
        __syncthreads();
        if (warp == 0) {  // lane l holds digits 8 l .. 8 l + 7; count from the largest digit downwards
            unsigned count = 0;
            for (int i = 0; i < 8; ++i) count += shared.histogram[lane * 8 + i];
            unsigned above = count;
            for (int step = 1; step < 32; step *= 2) {
                const unsigned other = __shfl_down_sync(~0u, above, step);
                if (lane + step < 32) above += other;
            }
            const bool enough = __shfl_sync(~0u, above, 0) > remaining;
            if (!enough && lane == 0) shared.remaining = 0;
            above -= count;  // candidates with larger digits than this lane's
            if (enough && above < remaining && above + count >= remaining) {
                for (int i = 7; i >= 0; --i) {
                    const unsigned here = shared.histogram[lane * 8 + i];
                    if (above + here >= remaining) {
                        shared.digit = lane * 8 + i;
                        shared.remaining = remaining - above;
                        break;
                    }
                    above += here;
                }
            }
        }
        __syncthreads();
        all = shared.remaining == 0;
        if (!all) {
            remaining = shared.remaining;
            prefix |= shared.digit << shift;
            known |= 255u << shift;
        }
        __syncthreads();
    }
    unsigned ties_before = 0;
    for (int64_t base = 0; base < n; base += blockDim.x) {
        const int64_t i = base + threadIdx.x;
        const float v = i < n ? value(i) : quiet_nan();
        const unsigned key = sort_key(v);
        if (all) {
            if (i < n) chosen[i] = k > 0 && !is_nan(v) && (key & known) >= prefix;
            continue;
        }
        const bool tie = !is_nan(v) && key == prefix;
        const unsigned ties = __ballot_sync(~0u, tie);
        if (lane == 0) shared.warp_ties[warp] = __popc(ties);
        __syncthreads();
        unsigned rank = ties_before + __popc(ties & ((1u << lane) - 1));
        for (int w = 0; w < warps; ++w) {
            const unsigned count = shared.warp_ties[w];
            rank += w < warp ? count : 0;
            ties_before += count;
        }
        if (i < n) chosen[i] = !is_nan(v) && (key > prefix || (tie && rank < remaining));
        __syncthreads();
    }
}

}  // namespace
}  // namespace vea::cuda
