// One cooperative launch, whose blocks all run at once and meet at a barrier of the whole grid.
//
// 1. Each block scores a run of keys for the query heads of one key head (flash-decoding's split over keys), 16 keys to a
//    warp at a time, and leaves the scores and, per head, their maximum and sum of exponentials in the workspace.
// 2. After the barrier each block looks up a slice of the image tokens of one sample, with the denominators of all runs.
// 3. Statistics and top-k need the whole row: they follow after another barrier.
//
// Why scores go to memory (Hq * Lk floats, next to Hkv * Lk * D elements of K): a probability needs the denominator of
// all runs, and reading a score back from the second-level cache costs less than computing it twice. Why the grid waits,
// where the last block of a sample could go on alone: one block would look up tens of thousands of scores, one round trip
// to the cache after the other (38 us for 1,300 keys on an H100, where the whole takes 7 now).
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <initializer_list>
#include <type_traits>

#include "../numerics.h"
#include "ops.h"
#include "topk.cuh"

namespace vea::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kResident = 2;         // blocks that a multiprocessor holds at once
constexpr int kKeys = 16;            // keys that a warp scores together: the rows of a tensor-core product
constexpr int kHeads = 8;            // query heads that it scores them for: the columns
constexpr int kStep = kWarps * kKeys;
constexpr int kTokens = 64;          // image tokens that a block looks up together, two to a lane
constexpr int kShare = 4;            // query heads that a warp looks up together
constexpr int kPitch = kMaxDim / 4 + 4;  // uint4 per query in shared memory; neighbours lie 64 bytes apart in the banks

// How the work is cut, and sizes as the kernel wants them: at small problems every instruction before the keys are on their
// way, and between the phases, is latency.
struct Plan {
    int heads, kv_heads, group, keys, dim, tokens;  // Hq, Hkv, Hq / Hkv, Lk, D, M
    int key_stride, head_stride, query_stride;      // of K's rows, of the query's heads and dimensions
    int run;                                        // keys that a block scores: those of split blockIdx.x
    bool all_keys, plain;                           // no sample has a key range; scores are but scaled
    float share;                                    // 1 / Hq
    dim3 grid;                                      // (splits, key heads, samples); blocks step over what is more

    VEA_HD int figures() const { return (tokens + kTokens - 1) / kTokens * 2; }

    Plan(const ImageAttention& p, int64_t resident)
        : heads(int(p.heads)), kv_heads(int(p.kv_heads)), group(int(p.heads / p.kv_heads)), keys(int(p.keys)),
          dim(int(p.dim)), tokens(int(p.tokens)), key_stride(int(p.key.stride[2])), head_stride(int(p.query.stride[1])),
          query_stride(int(p.query.stride[3])), all_keys(!p.key_start && !p.key_stop && p.window == 0),
          plain(p.softcap <= 0 && !p.mask && !p.position_bias), share(1 / float(p.heads)) {
        const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
        const auto parts = [](int64_t n, int64_t of) { return (n + of - 1) / of; };
        const int64_t steps = parts(p.keys, kStep);
        int64_t best = INT64_MAX;
        for (int64_t rounds = 1; rounds <= 4; ++rounds) {
            const int64_t wanted = least(rounds * resident / (p.batch * p.kv_heads), resident);
            const int64_t length = wanted > 1 ? parts(steps, wanted) : steps;
            const int64_t x = parts(steps, length), y = least(p.kv_heads, resident / x);
            const int64_t z = least(p.batch, resident / (x * y));
            const int64_t time = parts(p.kv_heads, y) * parts(p.batch, z) * (length + 1);  // + 1: what a run costs
            if (time < best) best = time, run = int(length * kStep), grid = dim3(unsigned(x), unsigned(y), unsigned(z));
        }
    }
};

// The workspace, cut into arrays. As large as any plan needs: it is asked for before the device is.
struct Layout {
    float4* figures;  // [B, M / 32] sums of a and of a ln a, largest a: of 32 image tokens
    float2* runs;     // [B, Hq, splits] (maximum, sum of exponentials)
    float* scores;    // [B, Hq, Lk]
    float* values;    // [B, M] what the top-k chooses from
    float* masses;    // [B] mean over heads of all probabilities: 1 but for sinks
    int64_t floats;

    Layout(const ImageAttention& p, float* workspace) {
        const int64_t rows = p.batch * p.heads;
        figures = reinterpret_cast<float4*>(workspace);  // the widest first: they need their alignment
        runs = reinterpret_cast<float2*>(figures + p.batch * (p.tokens / kTokens + 1) * 2);
        scores = reinterpret_cast<float*>(runs + rows * (p.keys / kStep + 1));
        values = scores + rows * p.keys;
        masses = values + p.batch * p.tokens;
        floats = masses + p.batch - workspace;
    }
};

struct LookUp {
    float2 softmax[kMaxHeads];  // (shift, factor): probability = exp(score - shift) * factor; by the warp that uses it
    float sums[kWarps][kTokens], values[kWarps][kTokens], masses[kWarps];
};

union Shared {
    struct {
        uint4 query[kHeads][kPitch];
        float2 softmax[kWarps][kHeads];
    } run;
    LookUp look_up;
    TopkShared topk;
};

// Elements as they lie in memory.
template <class T>
struct Element;

template <>
struct Element<float> {
    using Bits = unsigned;
    static constexpr int per_chunk = 4;  // in 16 bytes
    static constexpr int chunks = 2;     // of a key that a lane holds at once; four lanes share a key
};

template <>
struct Element<__half> {
    using Bits = unsigned short;
    static constexpr int per_chunk = 8;
    static constexpr int chunks = 4;
    static __device__ float2 both(unsigned pair) { return __half22float2(reinterpret_cast<const __half2&>(pair)); }
};

template <>
struct Element<__nv_bfloat16> {
    using Bits = unsigned short;
    static constexpr int per_chunk = 8;
    static constexpr int chunks = 4;
    static __device__ float2 both(unsigned pair) {
        return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
    }
};

// A slab of dimensions of two keys: every fourth chunk.
template <class T>
struct Chunks {
    uint4 of[2][Element<T>::chunks];
};

// 16 bytes of a key of which `left` elements are left; zeros beyond.
template <class T, bool ALIGNED>
__device__ uint4 load_chunk(const typename Element<T>::Bits* from, int left) {
    constexpr int size = Element<T>::per_chunk;
    if constexpr (ALIGNED) {  // K is read once: it should not push the scores out of the cache
        return left > 0 ? __ldcs(reinterpret_cast<const uint4*>(from)) : make_uint4(0, 0, 0, 0);
    } else {
        unsigned words[4];
#pragma unroll 1
        for (int i = 0; i < size; i += size / 4) {  // each comes to the front once: one copy of the code, few registers
            unsigned word = i < left ? from[i] : 0;
            if (size == 8 && i + 1 < left) word |= unsigned(from[i + 1]) << 16;
            words[0] = words[1], words[1] = words[2], words[2] = words[3], words[3] = word;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// c += a b for a: 16 keys by 16 dimensions, b: 16 dimensions by 8 heads, each a pair of dimensions per word. Lane 4 g + i
// holds a of keys g and g + 8, b of head g, and c of keys g and g + 8 for heads 2 i and 2 i + 1. Products are exact.
template <class T>
__device__ void multiply(float (&c)[4], uint4 a, uint2 b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (std::is_same_v<T, __half>) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
    }
#else  // Turing has no such product for bfloat16; its own for float16 is half as deep
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, __half>) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a.x), "r"(a.y), "r"(b.x));
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a.z), "r"(a.w), "r"(b.y));
        return;
    }
#endif
    const int lane = threadIdx.x % 32, row = lane / 4 * 4, column = lane % 4 * 8;
    const unsigned keys[2][2] = {{a.x, a.z}, {a.y, a.w}}, heads[2] = {b.x, b.y};
    for (int i = 0; i < 4; ++i) {
        for (int w = 0; w < 2; ++w) {
            float2 head[2];
            for (int n = 0; n < 2; ++n) head[n] = Element<T>::both(__shfl_sync(~0u, heads[w], column + 4 * n + i));
            for (int r = 0; r < 2; ++r) {
                const float2 key = Element<T>::both(__shfl_sync(~0u, keys[r][w], row + i));
                for (int n = 0; n < 2; ++n) c[2 * r + n] += key.x * head[n].x + key.y * head[n].y;
            }
        }
    }
#endif
}

// Scores of 16 keys for 8 heads, gathered over the dimensions; lane 4 g + i ends with keys g and g + 8 for heads 2 i and
// 2 i + 1, in this order: (g, 2 i), (g, 2 i + 1), (g + 8, 2 i), (g + 8, 2 i + 1).
template <class T>
struct Scores {
    float even[4] = {}, odd[4] = {};  // two sums, so that products need not wait for each other

    __device__ void add(const Chunks<T>& keys, const uint4* query, int lane) {
#pragma unroll
        for (int c = 0; c < Element<T>::chunks; ++c) {  // which dimensions meet is up to us, as long as K and the query agree
            const uint4 low = keys.of[0][c], high = keys.of[1][c], q = query[lane / 4 * kPitch + c * 4 + lane % 4];
            multiply<T>(even, make_uint4(low.x, high.x, low.y, high.y), make_uint2(q.x, q.y));
            multiply<T>(odd, make_uint4(low.z, high.z, low.w, high.w), make_uint2(q.z, q.w));
        }
    }

    __device__ void finish(float (&to)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) to[i] = even[i] + odd[i];
    }
};

template <>
struct Scores<float> {
    float sums[2][kHeads] = {};  // over this lane's dimensions

    __device__ void add(const Chunks<float>& keys, const uint4* query, int lane) {
#pragma unroll
        for (int c = 0; c < Element<float>::chunks; ++c) {
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                const uint4 q = query[h * kPitch + c * 4 + lane % 4];
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const uint4 k = keys.of[r][c];
                    sums[r][h] += __uint_as_float(q.x) * __uint_as_float(k.x) +
                                  __uint_as_float(q.y) * __uint_as_float(k.y) +
                                  __uint_as_float(q.z) * __uint_as_float(k.z) +
                                  __uint_as_float(q.w) * __uint_as_float(k.w);
                }
            }
        }
    }

    // Adds up over the four lanes; in each of two steps a lane gives away half of its heads and keeps the other.
    __device__ void finish(float (&to)[4]) const {
        const bool upper = threadIdx.x & 2, second = threadIdx.x & 1;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float half[4];
#pragma unroll
            for (int h = 0; h < 4; ++h) {
                const float kept = upper ? sums[r][h + 4] : sums[r][h], given = upper ? sums[r][h] : sums[r][h + 4];
                half[h] = kept + __shfl_xor_sync(~0u, given, 2);
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float kept = second ? half[h + 2] : half[h], given = second ? half[h] : half[h + 2];
                to[2 * r + h] = kept + __shfl_xor_sync(~0u, given, 1);
            }
        }
    }
};

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

struct Range {
    int begin, end;

    __device__ Range(const ImageAttention& p, const Plan& plan, int b) : begin(0), end(plan.keys) {
        if (plan.all_keys) return;
        const KeyRange range = key_range(p, b);
        begin = int(range.begin), end = int(range.end);
    }
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
__device__ void score_run(const ImageAttention& p, const Plan& plan, const Layout& w, int b, int g, Shared& shared) {
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
            load_queries<T>(plan, static_cast<const Bits*>(p.query.data) + at, here, shared.run.query[0]);
        }
        __syncthreads();
        float2 softmax[2] = {make_float2(minus_infinity(), 0), make_float2(minus_infinity(), 0)};  // heads 2 i, 2 i + 1
        float* scores = w.scores + int64_t(b * plan.heads + first + 2 * part) * plan.keys + begin + lane / 4;
#pragma unroll 1
        for (int at = warp * kKeys; at < n; at += kStep) {
            Scores<T> sums;
            for (int d = 0;;) {
                sums.add(chunks, shared.run.query[0] + d / size, lane);
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
            if (lane < 4) shared.run.softmax[warp][2 * lane + i] = softmax[i];
        }
        __syncthreads();
        if (threadIdx.x < here) {
            float2 sets[kWarps];
#pragma unroll
            for (int i = 0; i < kWarps; ++i) sets[i] = shared.run.softmax[i][threadIdx.x];
            w.runs[int64_t(b * plan.heads + first + threadIdx.x) * gridDim.x + split] = joined(sets);
        }
    }
}

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

// The softmax of the heads that this warp looks up, out of those of their runs; eight lanes to a head. Returns the sum of
// all their probabilities. Heads that fill up the warp's share weigh nothing.
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

// The image tokens of one sample from `first` on, in steps of `step`: 64 at a time, two to a lane, whose heads the warps
// share. What is needed next is on its way while the rest is done.
__device__ void look_up(const ImageAttention& p, const Plan& plan, const Layout& w, const Sample& sample, int b, int first,
                        int step, LookUp& shared) {
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
            fetch(done ? next.seen[0] : at.seen[0], done ? next.seen[1] : at.seen[1], done ? mine : from + kWarps * kShare);
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
                if (lane == 0) w.figures[int64_t(b) * plan.figures() + j / 32 + warp] = make_float4(sum, entropy, peak, 0);
            }
        }
        at = next;
        __syncthreads();
    }
}

// Image mass, text mass, peak and entropy of one sample, by one warp.
__device__ void write_stats(const ImageAttention& p, const Plan& plan, const Layout& w, int b) {
    float mass = 0, weighted_log = 0, peak = 0;
    for (int i = threadIdx.x; i < plan.figures(); i += 32) {
        const float4 part = __ldcg(w.figures + int64_t(b) * plan.figures() + i);
        mass += part.x, weighted_log += part.y, peak = fmaxf(peak, part.z);
    }
    mass = warp_sum(mass), weighted_log = warp_sum(weighted_log), peak = warp_max(peak);
    if (threadIdx.x != 0) return;
    const float text = __ldcg(w.masses + b) - mass;
    float* stats = p.stats + b * 4;
    stats[0] = mass;
    stats[1] = text < 0 ? 0 : text;  // rounding; NaN stays
    stats[2] = peak / mass;
    stats[3] = logf(mass) - weighted_log / mass;
}

__device__ __noinline__ void finish(const ImageAttention& p, const Plan& plan, const Layout& w, int b,
                                    TopkShared& shared) {
    if (p.stats && threadIdx.x < 32) write_stats(p, plan, w, b);
    if (!p.chosen) return;
    const auto value = [&](int64_t i) { return w.values[b * p.tokens + i]; };
    choose_topk(value, p.tokens, p.top_k, p.chosen + b * p.tokens, shared);
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, kResident)
    image_attention_kernel(const __grid_constant__ ImageAttention p, const __grid_constant__ Plan plan,
                           const __grid_constant__ Layout w) {
    __shared__ Shared shared;
    const cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    const int batch = int(p.batch), first = int(blockIdx.x + gridDim.x * blockIdx.y) * kTokens;
    for (int b = blockIdx.z; b < batch; b += gridDim.z) {
        for (int g = blockIdx.y; g < plan.kv_heads; g += gridDim.y) score_run<T, ALIGNED>(p, plan, w, b, g, shared);
    }
    Sample sample(p, plan, w, blockIdx.z, first);  // on its way before the others arrive
    grid.sync();
    for (int b = blockIdx.z; b < batch; b += gridDim.z) {
        look_up(p, plan, w, sample, b, first, int(gridDim.x * gridDim.y) * kTokens, shared.look_up);
        sample = Sample(p, plan, w, b + gridDim.z, first);
    }
    if (!p.stats && !p.chosen) return;
    grid.sync();
    if (blockIdx.x != 0 || blockIdx.y != 0) return;
    for (int b = blockIdx.z; b < batch; b += gridDim.z) finish(p, plan, w, b, shared.topk);
}

template <class T, bool ALIGNED>
int launch(const ImageAttention& p, float* workspace, cudaStream_t stream) {
    constexpr int64_t most = 1 << 30;  // the kernel counts in 32 bits
    for (const int64_t n : {p.batch * p.heads, p.heads * p.keys, p.tokens, p.key.stride[2], p.query.stride[1],
                            p.query.stride[3]}) {
        if (n > most || n < -most) return cudaErrorInvalidConfiguration;
    }
    int device = 0, multiprocessors = 0;
    if (const int error = cudaGetDevice(&device)) return error;
    if (const int error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) return error;
    const Plan plan(p, int64_t(multiprocessors) * kResident);
    cudaLaunchAttribute together{};
    together.id = cudaLaunchAttributeCooperative;  // all blocks at once, or an error
    together.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = plan.grid, config.blockDim = dim3(kThreads), config.stream = stream;
    config.attrs = &together, config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, image_attention_kernel<T, ALIGNED>, p, plan, Layout(p, workspace));
}

// Every instance costs build time on every architecture: the sizes are numbers at run time. One kernel per dtype serves
// keys that 16-byte loads cannot read.
template <class T>
int choose(const ImageAttention& p, float* workspace, cudaStream_t stream) {
    const auto whole = [](int64_t n) { return n % Element<T>::per_chunk == 0; };
    const bool aligned = reinterpret_cast<uintptr_t>(p.key.data) % 16 == 0 && whole(p.dim) && whole(p.key.stride[0]) &&
                         whole(p.key.stride[1]) && whole(p.key.stride[2]);
    return aligned ? launch<T, true>(p, workspace, stream) : launch<T, false>(p, workspace, stream);
}

}  // namespace

int64_t image_attention_workspace(const ImageAttention& p) { return Layout(p, nullptr).floats; }

}  // namespace vea::cuda

int vea_image_attention(const vea::ImageAttention* problem, float* workspace, void* stream) {
    using vea::Dtype;
    if (problem->batch == 0 || (problem->tokens == 0 && !problem->stats)) return cudaSuccess;
    switch (problem->key.dtype) {
        case Dtype::f32: return vea::cuda::choose<float>(*problem, workspace, cudaStream_t(stream));
        case Dtype::f16: return vea::cuda::choose<__half>(*problem, workspace, cudaStream_t(stream));
        case Dtype::bf16: return vea::cuda::choose<__nv_bfloat16>(*problem, workspace, cudaStream_t(stream));
        default: return cudaErrorInvalidValue;
    }
}
