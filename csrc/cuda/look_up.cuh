// Phase 2: the probabilities of the image tokens.
#pragma once

#include "plan.cuh"
#include "softmax.cuh"

namespace vea::cuda {
namespace {

struct LookUp {  // in shared memory
    float2 softmax[kMaxHeads];  // (shift, factor): probability = exp(score - shift) * factor; by the warp that uses it
    float sums[kWarps][kTokens], values[kWarps][kTokens], masses[kWarps];
};

// Two of the image tokens of a sample, for each lane.
struct Positions {
    int of[2];    // their keys: -1 for none and beyond the last token, -2 for a key that does not exist
    int seen[2];  // the same, -1 where the query may not see it

    __device__ Positions() : of{-1, -1}, seen{-1, -1} {}

    __device__ Positions(const ImageAttention& p, const Plan& plan, int b, int first) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int j = first + threadIdx.x % 32 + 32 * i;
            of[i] = seen[i] = -1;
            if (b >= p.batch || j >= plan.tokens) continue;
            const int64_t t = load_index(p.image_index.data, p.image_index.dtype,
                                         b * p.image_index.stride[0] + j * p.image_index.stride[1]);
            const Range range(p, plan, b);
            of[i] = t < -1 || t >= plan.keys ? -2 : int(t);
            seen[i] = of[i] >= range.begin && of[i] < range.end ? of[i] : -1;
        }
    }
};

// What a warp needs to know of a sample before it can look up its first tokens.
struct Sample {
    Positions at;
    const float* scores;  // of the warp's first head
    const float2* runs;

    __device__ Sample(const ImageAttention& p, const Plan& plan, const Layout& w, int b, int first)
        : at(p, plan, b, first),
          scores(w.scores + (int64_t(b) * plan.heads + threadIdx.x / 32 * kShare) * plan.keys),
          runs(w.runs + int64_t(b) * plan.heads * gridDim.x) {
#ifdef __CUDA_ARCH__  // The compiler would rather put this off until after the barrier, where it is waited for.
        asm volatile("" : "+l"(scores), "+l"(runs));
#endif
    }
};

// The softmax of the heads that this warp looks up, out of those of their runs; eight lanes to a head. Returns this
// lane's part of the sum of all their probabilities. Heads that fill up the warp's share weigh nothing.
__device__ float join_runs(const ImageAttention& p, const Plan& plan, const float2* of_sample, int b, LookUp& shared) {
    constexpr int lanes = 32 / kShare, batch = 4;
    const int part = threadIdx.x % lanes, runs = gridDim.x;
    float mass = 0;
    for (int first = threadIdx.x / 32 * kShare; first < plan.heads; first += kWarps * kShare) {
        const int h = first + threadIdx.x % 32 / lanes, here = h < plan.heads ? runs : 0;
        const float2* from = of_sample + unsigned(h * runs);
        float2 all = make_float2(minus_infinity(), 0);
        for (int i = part; i - part < runs; i += lanes * batch) {
            float2 sets[1 + batch];
            sets[batch] = all;
#pragma unroll
            for (int k = 0; k < batch; ++k) {
                sets[k] = i + k * lanes < here ? __ldcg(from + i + k * lanes) : make_float2(minus_infinity(), 0);
            }
            all = joined(sets);
        }
        all = joined_over_lanes(all, 1, lanes);
        if (part != 0) continue;
        float total = all.y, divisor = total;
        if (p.query_index) {
            const int64_t row = query_row(p, b);
            if (row < 0 || row >= p.queries) total = divisor = quiet_nan();  // a bad index cannot raise here
        }
        if (p.sinks && h < plan.heads) {
            const float sink = load_float(p.sinks.data, p.sinks.dtype, h * p.sinks.stride[0]);
            const float largest = fmaxf(all.x, sink);
            total *= exponential(all.x - largest);
            divisor = total + exponential(sink - largest);
            all.x = largest;
        }
        const float factor = __fdividef(1, divisor);
        shared.softmax[h] = h < plan.heads ? make_float2(all.x, factor) : make_float2(0, 0);
        if (h < plan.heads) mass += total * factor;
    }
    __syncwarp();
    return mass;
}

// Returns what `out` holds then.
__device__ float write(const ImageAttention& p, int b, int h, int j, float value) {
    float* to = p.out + b * p.out_stride[0] + h * p.out_stride[1] + j;
    return *to = p.accumulate ? *to + value : value;
}

// The image tokens of one sample from `first` on, in steps of `step`: 64 at a time, two to a lane, whose heads the
// warps share. What is needed next is on its way while the rest is done.
__device__ void look_up(const ImageAttention& p, const Plan& plan, const Layout& w, const Sample& sample, int b,
                        int first, int step, LookUp& shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = warp * kShare;
    Positions at = sample.at;
    float score[2][kShare];
    const auto fetch = [&](int t0, int t1, int from) {
#pragma unroll
        for (int k = 0; k < kShare; ++k) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int t = i == 0 ? t0 : t1;
                const bool visible = t >= 0 && from + k < plan.heads;
                score[i][k] = visible ? __ldcg(sample.scores + unsigned((from + k - mine) * plan.keys + t))
                                      : minus_infinity();
            }
        }
    };
    fetch(at.seen[0], at.seen[1], mine);
    float mass = join_runs(p, plan, sample.runs, b, shared);
    if (p.stats && first == 0) {
        mass = warp_sum(mass);
        if (lane == 0) shared.masses[warp] = mass;
        __syncthreads();
        if (threadIdx.x == 0) {
            float all = 0;
            for (int i = 0; i < kWarps; ++i) all += shared.masses[i];
            w.masses[b] = all * plan.share;
        }
        __syncthreads();  // where there is no image token, the next sample's masses follow at once
    }

    for (int j = first; j < plan.tokens; j += step) {
        const bool last = j + step >= plan.tokens;
        const Positions next = last ? Positions() : Positions(p, plan, b, j + step);
        float sum[2] = {}, value[2] = {};
        for (int from = mine; from < plan.heads; from += kWarps * kShare) {
#pragma unroll
            for (int k = 0; k < kShare; ++k) {
                const float2 softmax = shared.softmax[from + k];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    score[i][k] = exponential(score[i][k] - softmax.x) * softmax.y;
                    sum[i] += score[i][k];
                }
            }
            if (p.per_head) {
#pragma unroll
                for (int k = 0; k < kShare; ++k) {
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const int token = j + lane + 32 * i;
                        if (token >= plan.tokens || from + k >= plan.heads) continue;
                        const float probability = at.of[i] == -1 ? 0 : at.of[i] == -2 ? quiet_nan() : score[i][k];
                        value[i] += write(p, b, from + k, token, p.weight * probability);
                    }
                }
            }
            const bool done = from + kWarps * kShare >= plan.heads;
            if (done && last) break;
            fetch(done ? next.seen[0] : at.seen[0], done ? next.seen[1] : at.seen[1],
                  done ? mine : from + kWarps * kShare);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            shared.sums[warp][lane + 32 * i] = at.of[i] == -1 ? 0 : at.of[i] == -2 ? quiet_nan() : sum[i];
            if (p.per_head) shared.values[warp][lane + 32 * i] = value[i];
        }
        __syncthreads();
        if (warp < 2) {
            const int token = j + threadIdx.x;
            float all = 0, kept = 0;
#pragma unroll
            for (int i = 0; i < kWarps; ++i) all += shared.sums[i][threadIdx.x];
            if (p.per_head) {
                for (int i = 0; i < kWarps; ++i) kept += shared.values[i][threadIdx.x];
            }
            const float mean = all * plan.share;
            if (!p.per_head && token < plan.tokens) kept = write(p, b, 0, token, p.weight * mean);
            if (p.chosen && token < plan.tokens) {
                w.values[int64_t(b) * plan.tokens + token] = (warp == 0 ? at.of[0] : at.of[1]) < 0 ? quiet_nan() : kept;
            }
            if (p.stats) {  // beyond the last token the mean is zero
                const float entropy = warp_sum(mean == 0 ? 0 : mean * logf(mean)), sum = warp_sum(mean);
                const float peak = warp_max(mean);
                const int64_t to = int64_t(b) * plan.figures() + j / 32 + warp;
                if (lane == 0) w.figures[to] = make_float4(sum, entropy, peak, 0);
            }
        }
        at = next;
        __syncthreads();
    }
}

}  // namespace
}  // namespace vea::cuda
