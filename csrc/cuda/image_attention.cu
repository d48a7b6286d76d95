// One launch. A block scores a tile of keys for the query heads of one key head (flash-decoding's split over keys) and
// leaves the scores, the tile's maximum and its sum of exponentials in the workspace. The block that finishes a key head
// last joins the tiles and looks up the image tokens for that group of heads; the block that finishes a sample last
// averages the groups. "Last" is found by a ticket counter that wraps round to zero by itself.
//
// Why scores go to memory (Hq * Lk floats, next to Hkv * Lk * D elements of K): a probability needs the denominator of
// all tiles, and reading a score back from the second-level cache costs less than computing it twice.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../numerics.h"
#include "ops.h"
#include "topk.cuh"

namespace vea::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxTile = 256;     // keys per block
constexpr int64_t kBlocks = 264;  // two per multiprocessor of a large GPU: fewer, and smaller tiles are better

struct Plan {
    int tile, splits;  // keys per block, blocks per key head

    explicit Plan(const ImageAttention& p) {
        for (tile = kMaxTile; tile > 32 && p.batch * p.kv_heads * ((p.keys + tile - 1) / tile) < kBlocks;) tile /= 2;
        splits = int((p.keys + tile - 1) / tile);
    }
};

// The workspace, cut into arrays.
struct Layout {
    float* scores;   // [B, Hq, Lk]
    float2* tiles;   // [B, Hq, splits] (maximum, sum of exponentials)
    float2* heads;   // [B, Hq] (shift, factor): probability = exp(score - shift) * factor
    float* groups;   // [B, Hkv, M] probabilities summed over the heads of a group
    float* means;    // [B, M] what the top-k chooses from
    float* masses;   // [B, Hq] sum of all probabilities: 1 but for sinks
    int64_t floats;

    Layout(const ImageAttention& p, const Plan& plan, float* workspace) {
        const int64_t rows = p.batch * p.heads;
        tiles = reinterpret_cast<float2*>(workspace);  // pairs first: they need 8-byte alignment
        heads = tiles + rows * plan.splits;
        scores = reinterpret_cast<float*>(heads + rows);
        groups = scores + rows * p.keys;
        means = groups + p.batch * p.kv_heads * p.tokens;
        masses = means + p.batch * p.tokens;
        floats = masses + rows - workspace;
    }
};

// 16 bytes of K as floats.
template <class T>
struct Chunk;

template <>
struct Chunk<float> {
    static constexpr int size = 4;
    static __device__ void unpack(uint4 raw, float* to) {
        to[0] = __uint_as_float(raw.x), to[1] = __uint_as_float(raw.y);
        to[2] = __uint_as_float(raw.z), to[3] = __uint_as_float(raw.w);
    }
    static __device__ float one(const float* from) { return *from; }
};

template <>
struct Chunk<__nv_bfloat16> {
    static constexpr int size = 8;
    static __device__ void unpack(uint4 raw, float* to) {
        const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
        for (int i = 0; i < 4; ++i) {
            to[2 * i] = __uint_as_float(words[i] << 16);
            to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    }
    static __device__ float one(const __nv_bfloat16* from) { return __bfloat162float(*from); }
};

template <>
struct Chunk<__half> {
    static constexpr int size = 8;
    static __device__ void unpack(uint4 raw, float* to) {
        const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
        for (int i = 0; i < 4; ++i) {
            const float2 pair = __half22float2(reinterpret_cast<const __half2&>(words[i]));
            to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
        }
    }
    static __device__ float one(const __half* from) { return __half2float(*from); }
};

// Sums value[0..HEADS) over LANES neighbouring lanes. Each step halves the values a lane carries by trading halves with
// its partner, so HEADS sums cost HEADS - 1 + log2(LANES / HEADS) shuffles, not HEADS * log2(LANES). Lane l of the LANES
// ends with the sum of head l / (LANES / HEADS).
template <int HEADS, int LANES>
__device__ float sum_over_lanes(const float (&value)[HEADS], int lane) {
    constexpr int step = LANES / 2;
    if constexpr (HEADS > 1) {
        constexpr int half = HEADS / 2;
        const bool upper = lane & step;
        float kept[half];
#pragma unroll
        for (int h = 0; h < half; ++h) {
            const float mine = upper ? value[h + half] : value[h];
            const float theirs = upper ? value[h] : value[h + half];
            kept[h] = mine + __shfl_xor_sync(~0u, theirs, step);
        }
        return sum_over_lanes<half, step>(kept, lane);
    } else if constexpr (LANES > 1) {
        const float both[1] = {value[0] + __shfl_xor_sync(~0u, value[0], step)};
        return sum_over_lanes<1, step>(both, lane);
    } else {
        return value[0];
    }
}

__device__ float warp_max(float value) {
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

__device__ float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

// True for all threads of the block that draws the last of `total` tickets; the counter is zero again then. What the
// other blocks wrote before their ticket is visible to the last one after it.
__device__ bool is_last(unsigned* ticket, int64_t total) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(ticket, unsigned(total - 1)) == unsigned(total - 1);
    __syncthreads();
    __threadfence();
    return last;
}

// The scores of one tile for HEADS heads from `first` on, in shared memory: score[h][t] = q_h · k_t, unscaled.
template <class T, int DIM, int HEADS, bool ALIGNED>
__device__ void score_tile(const ImageAttention& p, int64_t b, int64_t group, int64_t first, int heads, int64_t begin,
                           int n, float (*score)[kMaxTile]) {
    constexpr int size = Chunk<T>::size;
    constexpr int lanes = DIM / size < 32 ? DIM / size : 32;  // lanes that share a key
    constexpr int chunks = DIM / size / lanes;                // 16-byte chunks per lane
    constexpr int keys_per_warp = 32 / lanes;
    constexpr int unroll = chunks == 1 ? 4 : 2;
    static_assert(lanes % HEADS == 0);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int part = lane % lanes;

    float q[HEADS][chunks * size];
    const int64_t row = query_row(p, b);
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
#pragma unroll
        for (int i = 0; i < chunks * size; ++i) {
            const int d = (i / size * lanes + part) * size + i % size;
            const int64_t at = b * p.query.stride[0] + (first + h) * p.query.stride[1] + row * p.query.stride[2] +
                               d * p.query.stride[3];
            q[h][i] = h < heads && d < p.dim ? Chunk<T>::one(static_cast<const T*>(p.query.data) + at) : 0.0f;
        }
    }

    const T* keys = static_cast<const T*>(p.key.data) + b * p.key.stride[0] + group * p.key.stride[1] +
                    begin * p.key.stride[2];
    constexpr int stride = kWarps * keys_per_warp;
    for (int base = warp * keys_per_warp; base < n; base += stride * unroll) {
        uint4 raw[unroll][chunks];
        if constexpr (ALIGNED) {
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                const int t = base + u * stride + lane / lanes;
#pragma unroll
                for (int c = 0; c < chunks; ++c) {
                    const int d = (c * lanes + part) * size;
                    const bool inside = t < n && d < p.dim;
                    raw[u][c] = inside ? __ldg(reinterpret_cast<const uint4*>(keys + t * p.key.stride[2] + d))
                                       : make_uint4(0, 0, 0, 0);
                }
            }
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            const int t = base + u * stride + lane / lanes;
            float sums[HEADS] = {};
#pragma unroll
            for (int c = 0; c < chunks; ++c) {
                float k[size];
                if constexpr (ALIGNED) {
                    Chunk<T>::unpack(raw[u][c], k);
                } else {
#pragma unroll
                    for (int i = 0; i < size; ++i) {
                        const int d = (c * lanes + part) * size + i;
                        k[i] = t < n && d < p.dim ? Chunk<T>::one(keys + t * p.key.stride[2] + d) : 0.0f;
                    }
                }
#pragma unroll
                for (int h = 0; h < HEADS; ++h) {
#pragma unroll
                    for (int i = 0; i < size; ++i) sums[h] += q[h][c * size + i] * k[i];
                }
            }
            const float total = sum_over_lanes<HEADS, lanes>(sums, lane);
            constexpr int lanes_per_head = lanes / HEADS;
            if (part % lanes_per_head == 0 && t < n) score[part / lanes_per_head][t] = total;
        }
    }
}

// q·k to what enters the softmax.
__device__ float shaped(const ImageAttention& p, float score, int64_t b, int64_t h, int64_t row, int64_t t) {
    score *= p.scale;
    if (p.softcap > 0) score = p.softcap * tanhf(score / p.softcap);
    if (!p.mask && !p.position_bias) return score;
    const float bias = bias_value(p, b, h, row, t);
    return bias == minus_infinity() ? bias : score + bias;
}

// The tile's scores as they enter the softmax, with their maximum and sum of exponentials: a warp per head.
__device__ __noinline__ void finish_tile(const ImageAttention& p, const Plan& plan, const Layout& w, int64_t b,
                                         int64_t first, int heads, int64_t begin, int n, int split,
                                         float (*score)[kMaxTile]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row = query_row(p, b);
    for (int h = warp; h < heads; h += kWarps) {
        const int64_t at = b * p.heads + first + h;
        float largest = minus_infinity(), total = 0;
        for (int t = lane; t < n; t += 32) {
            const float s = shaped(p, score[h][t], b, first + h, row, begin + t);
            score[h][t] = s;
            w.scores[at * p.keys + begin + t] = s;
            largest = fmaxf(largest, s);  // passes over NaN, which the sum then catches
        }
        largest = warp_max(largest);
        const float shift = largest == minus_infinity() ? 0 : largest;
        for (int t = lane; t < n; t += 32) total += expf(score[h][t] - shift);
        total = warp_sum(total);
        if (lane == 0) w.tiles[at * plan.splits + split] = make_float2(largest, total);
    }
}

// Joins the tiles of one head, by one warp.
__device__ void join_tiles(const ImageAttention& p, const Plan& plan, const Layout& w, int64_t b, int64_t h) {
    const float2* tiles = w.tiles + (b * p.heads + h) * plan.splits;
    const int lane = threadIdx.x % 32;
    const float sink = p.sinks ? load_float(p.sinks.data, p.sinks.dtype, h * p.sinks.stride[0]) : minus_infinity();
    float largest = sink;
    for (int i = lane; i < plan.splits; i += 32) largest = fmaxf(largest, __ldcg(tiles + i).x);
    largest = warp_max(largest);
    float total = 0;
    for (int i = lane; i < plan.splits; i += 32) {
        const float2 tile = __ldcg(tiles + i);
        total += tile.y * expf(tile.x - largest);
    }
    total = warp_sum(total);
    const int64_t row = query_row(p, b);
    if (row < 0 || row >= p.queries) total = quiet_nan();  // a bad index cannot raise here
    const float factor = 1 / (p.sinks ? total + expf(sink - largest) : total);
    if (lane == 0) {
        w.heads[b * p.heads + h] = make_float2(largest, factor);
        w.masses[b * p.heads + h] = total * factor;
    }
}

__device__ int64_t token(const ImageAttention& p, int64_t b, int64_t j) {
    return load_index(p.image_index.data, p.image_index.dtype,
                      b * p.image_index.stride[0] + j * p.image_index.stride[1]);
}

__device__ void write(const ImageAttention& p, int64_t b, int64_t h, int64_t j, float value) {
    float* to = p.out + b * p.out_stride[0] + h * p.out_stride[1] + j;
    *to = p.accumulate ? *to + value : value;
}

// The image tokens of one group of heads.
__device__ void look_up(const ImageAttention& p, const Layout& w, int64_t b, int64_t group) {
    const KeyRange range = key_range(p, b);
    const int64_t heads = p.heads / p.kv_heads, first = group * heads;
    for (int64_t j = threadIdx.x; j < p.tokens; j += kThreads) {
        const int64_t t = token(p, b, j);
        const bool visible = t >= range.begin && t < range.end;
        const bool bad = t < -1 || t >= p.keys;
        float sum = 0;
#pragma unroll 4
        for (int64_t h = first; h < first + heads; ++h) {
            const float2 softmax = w.heads[b * p.heads + h];
            const float score = visible ? __ldcg(w.scores + (b * p.heads + h) * p.keys + t) : minus_infinity();
            float probability = expf(score - softmax.x) * softmax.y;
            probability = bad ? quiet_nan() : t < 0 ? 0.0f : probability;
            if (p.per_head) write(p, b, h, j, p.weight * probability);
            sum += probability;
        }
        w.groups[(b * p.kv_heads + group) * p.tokens + j] = sum;
    }
}

// Image mass, text mass, peak and entropy of one sample, from what each thread saw of its mean row: the sums of a and of
// a ln a, and the largest a.
__device__ void write_stats(const ImageAttention& p, const Layout& w, int64_t b, float mass, float weighted_log,
                            float peak) {
    __shared__ float part[kWarps][4];
    float total = 0;
    for (int64_t h = threadIdx.x; h < p.heads; h += kThreads) total += __ldcg(w.masses + b * p.heads + h);
    mass = warp_sum(mass), weighted_log = warp_sum(weighted_log), peak = warp_max(peak), total = warp_sum(total);
    if (threadIdx.x % 32 == 0) {
        float* mine = part[threadIdx.x / 32];
        mine[0] = mass, mine[1] = weighted_log, mine[2] = peak, mine[3] = total;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < kWarps; ++i) {
        mass += part[i][0], weighted_log += part[i][1], peak = fmaxf(peak, part[i][2]), total += part[i][3];
    }
    const float text = total / float(p.heads) - mass;
    float* stats = p.stats + b * 4;
    stats[0] = mass;
    stats[1] = text < 0 ? 0 : text;  // rounding; NaN stays
    stats[2] = peak / mass;
    stats[3] = logf(mass) - weighted_log / mass;
}

// The mean over all heads of one sample, its figures and its top k.
__device__ void finish(const ImageAttention& p, const Layout& w, int64_t b, TopkShared& shared) {
    float mass = 0, weighted_log = 0, peak = 0;
    for (int64_t j = threadIdx.x; j < p.tokens; j += kThreads) {
        if (!p.per_head || p.stats) {
            float sum = 0;
            for (int64_t g = 0; g < p.kv_heads; ++g) sum += __ldcg(w.groups + (b * p.kv_heads + g) * p.tokens + j);
            const float mean = sum / float(p.heads);
            if (!p.per_head) write(p, b, 0, j, p.weight * mean);
            mass += mean;
            weighted_log += mean == 0 ? 0 : mean * logf(mean);
            peak = fmaxf(peak, mean);
        }
        if (p.chosen) {
            float sum = 0;
            const int64_t rows = p.per_head ? p.heads : 1;
            for (int64_t h = 0; h < rows; ++h) sum += __ldcg(p.out + b * p.out_stride[0] + h * p.out_stride[1] + j);
            w.means[b * p.tokens + j] = token(p, b, j) < 0 ? quiet_nan() : sum;
        }
    }
    if (p.stats) write_stats(p, w, b, mass, weighted_log, peak);
    if (!p.chosen) return;
    __syncthreads();
    const auto value = [&](int64_t i) { return w.means[b * p.tokens + i]; };
    choose_topk(value, p.tokens, p.top_k, p.chosen + b * p.tokens, shared);
}

// What follows when a tile is done: the last block of a key head, then the last of a sample, go on.
__device__ __noinline__ void combine(const ImageAttention& p, const Plan& plan, const Layout& w, unsigned* tickets,
                                     int64_t b, int64_t group, TopkShared& shared) {
    if (!is_last(tickets + b * p.kv_heads + group, plan.splits)) return;
    const int64_t heads = p.heads / p.kv_heads;
    for (int64_t h = threadIdx.x / 32; h < heads; h += kWarps) join_tiles(p, plan, w, b, group * heads + h);
    __syncthreads();
    look_up(p, w, b, group);
    if (is_last(tickets + p.batch * p.kv_heads + b, p.kv_heads)) finish(p, w, b, shared);
}

template <class T, int DIM, int HEADS, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 4)
    image_attention_kernel(const __grid_constant__ ImageAttention p, const __grid_constant__ Plan plan,
                           const __grid_constant__ Layout w, unsigned* tickets) {
    __shared__ union {
        float score[HEADS][kMaxTile];
        TopkShared topk;
    } shared;
    const unsigned split = blockIdx.x % unsigned(plan.splits), rest = blockIdx.x / unsigned(plan.splits);
    const unsigned group = rest % unsigned(p.kv_heads), b = rest / unsigned(p.kv_heads);
    const KeyRange range = key_range(p, b);
    const int64_t row = query_row(p, b);
    const int64_t begin = range.begin + int64_t(split) * plan.tile;
    const int64_t left = row < 0 || row >= p.queries ? 0 : range.end - begin;
    const int n = left < 0 ? 0 : left < plan.tile ? int(left) : plan.tile;

    const int heads = int(unsigned(p.heads) / unsigned(p.kv_heads));
    for (int pass = 0; pass < heads; pass += HEADS) {
        const int64_t first = int64_t(group) * heads + pass;
        const int here = heads - pass < HEADS ? heads - pass : HEADS;
        if (n > 0) score_tile<T, DIM, HEADS, ALIGNED>(p, b, group, first, here, begin, n, shared.score);
        __syncthreads();
        finish_tile(p, plan, w, b, first, here, begin, n, split, shared.score);
        __syncthreads();
    }
    combine(p, plan, w, tickets, b, group, shared.topk);
}

template <class T, int DIM, int HEADS, bool ALIGNED>
int launch(const ImageAttention& p, unsigned* tickets, float* workspace, cudaStream_t stream) {
    const Plan plan(p);
    const Layout layout(p, plan, workspace);
    const int64_t blocks = p.batch * p.kv_heads * plan.splits;
    if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
    image_attention_kernel<T, DIM, HEADS, ALIGNED>
        <<<unsigned(blocks), kThreads, 0, stream>>>(p, plan, layout, tickets);
    return cudaGetLastError();
}

// Head groups of 1, up to 4, and more (in passes of 8); head dimensions above 128 in passes of 4. One slow kernel per
// dtype serves keys that 16-byte loads cannot read. Every instance costs build time on every architecture.
template <class T>
int choose(const ImageAttention& p, unsigned* tickets, float* workspace, cudaStream_t stream) {
    constexpr int size = Chunk<T>::size;
    const auto whole = [](int64_t n) { return n % size == 0; };
    const bool aligned = reinterpret_cast<uintptr_t>(p.key.data) % 16 == 0 && whole(p.dim) && whole(p.key.stride[0]) &&
                         whole(p.key.stride[1]) && whole(p.key.stride[2]);
    if (!aligned) return launch<T, 256, 4, false>(p, tickets, workspace, stream);
    if (p.dim > 128) return launch<T, 256, 4, true>(p, tickets, workspace, stream);
    const int64_t group = p.heads / p.kv_heads;
    if (group == 1) return launch<T, 128, 1, true>(p, tickets, workspace, stream);
    if (group <= 4) return launch<T, 128, 4, true>(p, tickets, workspace, stream);
    return launch<T, 128, 8, true>(p, tickets, workspace, stream);
}

}  // namespace

Workspace image_attention_workspace(const ImageAttention& p) {
    const Layout layout(p, Plan(p), nullptr);
    return {p.batch * (p.kv_heads + 1), layout.floats};
}

}  // namespace vea::cuda

int vea_image_attention(const vea::ImageAttention* problem, unsigned* tickets, float* workspace, void* stream) {
    using namespace vea;
    if (problem->batch == 0 || (problem->tokens == 0 && !problem->stats)) return cudaSuccess;
    switch (problem->key.dtype) {
        case Dtype::f32: return cuda::choose<float>(*problem, tickets, workspace, cudaStream_t(stream));
        case Dtype::f16: return cuda::choose<__half>(*problem, tickets, workspace, cudaStream_t(stream));
        case Dtype::bf16: return cuda::choose<__nv_bfloat16>(*problem, tickets, workspace, cudaStream_t(stream));
        default: return cudaErrorInvalidValue;
    }
}
