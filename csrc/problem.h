// The one contract of both devices: what an operation reads and writes, as plain pointers, strides and sizes.
// Nothing here knows Python or torch. Strides count elements. B, Hq, Hkv, Lq, Lk, D, M as in the public docs.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define VEA_HD __host__ __device__ __forceinline__
#else
#define VEA_HD inline
#endif

namespace vea {

enum class Dtype : int32_t { f32, f16, bf16, i32, i64, boolean };

VEA_HD constexpr int64_t bytes_of_float(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }

// A tensor of at most four dimensions. A dimension that is shared (size 1 where more is needed) has stride 0.
struct Array {
    const void* data = nullptr;  // nullptr: not given
    Dtype dtype = Dtype::f32;
    int64_t stride[4] = {0, 0, 0, 0};

    VEA_HD explicit operator bool() const { return data != nullptr; }
};

// out (+)= weight * mean over heads of softmax(score), at the image tokens.
struct ImageAttention {
    int64_t batch = 0;     // B
    int64_t heads = 0;     // Hq, a multiple of kv_heads
    int64_t kv_heads = 0;  // Hkv
    int64_t queries = 0;   // Lq
    int64_t keys = 0;      // Lk
    int64_t dim = 0;       // D
    int64_t tokens = 0;    // M

    Array query;          // [B, Hq, Lq, D] f32, f16 or bf16
    Array key;            // [B, Hkv, Lk, D] same dtype, D contiguous
    Array image_index;    // [B, M] i32 or i64; -1: no token
    Array query_index;    // [B] i32 or i64; not given: the last row
    Array key_start;      // [B] i32 or i64; not given: 0
    Array key_stop;       // [B] i32 or i64; not given: Lk
    Array mask;           // [B, Hq, Lq, >= Lk] boolean or float
    Array position_bias;  // [B, Hq, Lq, >= Lk] float
    Array sinks;          // [Hq] float

    float scale = 1;
    float softcap = 0;   // 0: none
    int64_t window = 0;  // 0: none; else only the last `window` valid keys
    float weight = 1;

    float* out = nullptr;           // [B, M], or [B, Hq, M] with per_head; M contiguous
    int64_t out_stride[2] = {0, 0};  // of B and Hq
    bool accumulate = false;        // add to what `out` holds
    bool per_head = false;

    bool* chosen = nullptr;  // [B, M] contiguous: the top_k largest of `out` (of its head mean); nullptr: not wanted
    int64_t top_k = 0;

    float* stats = nullptr;  // [B, 4] contiguous: image mass, text mass, peak, entropy of the mean row; nullptr: not wanted
};

// chosen[b, i] = scores[b, i] is among the k largest of row b.
struct TopkMask {
    int64_t batch = 0;     // B
    int64_t tokens = 0;    // M
    Array scores;          // [B, M] f32, f16 or bf16
    bool* chosen = nullptr;  // [B, M] contiguous
    int64_t k = 0;
};

}  // namespace vea
