// Phase 1: the scores of all keys.
#pragma once

#include "products.cuh"
#include "softmax.cuh"

namespace vea::cuda {
namespace {

struct Scoring {  // in shared memory
    uint4 query[kHeads][kPitch];
    float2 softmax[kWarps][kHeads];
};

// A scaled score to what enters the softmax.
__device__ float shaped(const ImageAttention& p, float score, int64_t b, int64_t h, int64_t row, int64_t t) {
    if (p.softcap > 0) score = p.softcap * tanhf(score / p.softcap);
    if (!p.mask && !p.position_bias) return score;
    const float bias = bias_value(p, b, h, row, t);
    return bias == minus_infinity() ? bias : score + bias;
}

// Up to 8 queries to shared memory, filled up with zeros.
template <class T>
__device__ void load_queries(const Plan& plan, const typename Element<T>::Bits* query, int heads, uint4* to) {
    using Bits = typename Element<T>::Bits;
    constexpr int slab = Element<T>::chunks * 4 * Element<T>::per_chunk, rows = 2;  // that the block loads at once
    const int from = threadIdx.x / (kThreads / rows), filled = (plan.dim + slab - 1) / slab * slab;
    for (int d = threadIdx.x % (kThreads / rows); d < filled; d += kThreads / rows) {
#pragma unroll
        for (int i = 0; i < kHeads / rows; ++i) {
            const int h = i * rows + from;
            const bool inside = h < heads && d < plan.dim;
            reinterpret_cast<Bits*>(to + h * kPitch)[d] =
                inside ? query[int64_t(h) * plan.head_stride + int64_t(d) * plan.query_stride] : Bits(0);
        }
    }
}

// Scores of one run of keys, for all query heads of its key head.
template <class T, bool ALIGNED>
__device__ void score_run(const ImageAttention& p, const Plan& plan, const Layout& w, int b, int g, Scoring& shared) {
    using Bits = typename Element<T>::Bits;
    constexpr int size = Element<T>::per_chunk, slab = Element<T>::chunks * 4 * size;
    const int split = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = lane % 4;
    const Range range(p, plan, b);
    const int64_t row = query_row(p, b);
    const int begin = range.begin + split * plan.run, left = range.end - begin;
    const int n = row < 0 || row >= p.queries || left < 0 ? 0 : left < plan.run ? left : plan.run;

    const int dim = plan.dim, beyond = n - lane / 4;  // this lane's keys are every 8th from the first on
    const Bits* keys = static_cast<const Bits*>(p.key.data) + b * p.key.stride[0] + g * p.key.stride[1] +
                       int64_t(begin + lane / 4) * plan.key_stride + part * size;
    const auto load = [&](int at, int d) {
        Chunks<T> chunks;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const Bits* key = keys + int64_t(at + 8 * r) * plan.key_stride + d;
            const int left = at + 8 * r < beyond ? dim - d - part * size : 0;  // elements of the key from here on
#pragma unroll
            for (int c = 0; c < Element<T>::chunks; ++c) {
                chunks.of[r][c] = load_chunk<T, ALIGNED>(key + c * 4 * size, left - c * 4 * size);
            }
        }
        return chunks;
    };

    for (int pass = 0; pass < plan.group; pass += kHeads) {
        const int first = g * plan.group + pass, here = plan.group - pass < kHeads ? plan.group - pass : kHeads;
        Chunks<T> chunks = load(warp * kKeys, 0);
        if (n > 0) {
            const int64_t at = b * p.query.stride[0] + first * p.query.stride[1] + row * p.query.stride[2];
            load_queries<T>(plan, static_cast<const Bits*>(p.query.data) + at, here, shared.query[0]);
        }
        __syncthreads();
        float2 softmax[2] = {make_float2(minus_infinity(), 0), make_float2(minus_infinity(), 0)};  // heads 2 i, 2 i + 1
        float* scores = w.scores + int64_t(b * plan.heads + first + 2 * part) * plan.keys + begin + lane / 4;
#pragma unroll 1
        for (int at = warp * kKeys; at < n; at += kStep) {
            Scores<T> sums;
            for (int d = 0;;) {
                sums.add(chunks, shared.query[0] + d / size, lane);
                d += slab;
                if (d >= dim) break;
                chunks = load(at, d);
            }
            float score[4];
            sums.finish(score);
#pragma unroll
            for (int k = 0; k < 4; ++k) score[k] *= p.scale;
            if (!plan.plain) {
#pragma unroll 1
                for (int k = 0; k < 4; ++k) {  // each comes to the front once: one copy of the code, few registers
                    const int h = 2 * part + k % 2, t = at + lane / 4 + k / 2 * 8;
                    const float front = h < here && t < n ? shaped(p, score[0], b, first + h, row, begin + t) : 0;
                    score[0] = score[1], score[1] = score[2], score[2] = score[3], score[3] = front;
                }
            }
            chunks = load(at + kStep, 0);  // on its way while the rest is done
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float* to = scores + at + (i == 0 ? 0 : plan.keys);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    if (2 * part + i < here && at + 8 * r < beyond) {
                        to[8 * r] = score[2 * r + i];
                    } else {
                        score[2 * r + i] = minus_infinity();
                    }
                }
                const float2 sets[3] = {softmax[i], make_float2(score[i], 1), make_float2(score[2 + i], 1)};
                softmax[i] = joined(sets);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            softmax[i] = joined_over_lanes(softmax[i], 4, 32);
            if (lane < 4) shared.softmax[warp][2 * lane + i] = softmax[i];
        }
        __syncthreads();
        if (threadIdx.x < here) {
            float2 sets[kWarps];
#pragma unroll
            for (int i = 0; i < kWarps; ++i) sets[i] = shared.softmax[i][threadIdx.x];
            w.runs[int64_t(b * plan.heads + first + threadIdx.x) * gridDim.x + split] = joined(sets);
        }
    }
}

}  // namespace
}  // namespace vea::cuda
