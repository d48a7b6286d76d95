// Products of 16 keys and 8 queries by one warp: on tensor cores for halves, by multiply-adds for float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "plan.cuh"

namespace vea::cuda {
namespace {

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

// c += a b for a: 16 keys by 16 dimensions, b: 16 dimensions by 8 heads, each a pair of dimensions per word. Lane
// 4 g + i holds a of keys g and g + 8, b of head g, and c of keys g and g + 8 for heads 2 i and 2 i + 1. Products are
// exact.
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

// Scores of 16 keys for 8 heads, gathered over the dimensions; lane 4 g + i ends with keys g and g + 8 for heads 2 i
// and 2 i + 1, in this order: (g, 2 i), (g, 2 i + 1), (g + 8, 2 i), (g + 8, 2 i + 1).
template <class T>
struct Scores {
    float even[4] = {}, odd[4] = {};  // two sums, so that products need not wait for each other

    __device__ void add(const Chunks<T>& keys, const uint4* query, int lane) {
#pragma unroll
        for (int c = 0; c < Element<T>::chunks; ++c) {  // which dimensions meet is free, as long as both agree
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

}  // namespace
}  // namespace vea::cuda
