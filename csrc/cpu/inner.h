// The inner loops of the CPU kernel, one table per instruction set; image_attention.cpp picks one at run time.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace vea {

constexpr int64_t kBlock = 512;   // keys whose scores are handled together (they stay in the first-level cache)
constexpr int64_t kLanes = 16;    // row lengths are rounded up to this, whatever the vector width
constexpr int64_t kMaxDim = 512;  // D
constexpr int64_t kRow = kBlock + kLanes;  // floats from a head's scores to the next one's

struct RowFigures {  // of values a >= 0
    float mass, weighted_log, peak;  // sum of a, of a ln a, largest a (0 where all are NaN)
};

struct InnerLoops {
    // A row of `dim` elements that lie together as floats, with zeros up to a multiple of kLanes.
    void (*widen)(const void* row, Dtype dtype, int64_t dim, float* to);

    // scores[h * kRow + t] = scale * q_h · k_t, h < heads, t < n <= kBlock, and anything behind them in the row.
    // Asks for keys behind the n-th in advance.
    // queries: [heads, padded dim], of `dtype` too but widened, zeros behind dim. keys: row t at keys + t * stride elements.
    void (*dots)(const float* queries, int64_t heads, const void* keys, Dtype dtype, int64_t stride, int64_t dim,
                 float scale, int64_t n, float* scores);

    // In place: softcap * tanh(score / softcap) + bias, -infinity where bias is. bias may be nullptr.
    // Returns the largest, and fills what remains of the last vector with -infinity.
    float (*shape)(float* scores, int64_t n, float softcap, const float* bias);

    // to[t] = exp(score[t] - shift); returns their sum.
    float (*exponentials)(const float* scores, int64_t n, float shift, float* to);

    // sums[t] += values[t] * factor.
    void (*add_scaled)(const float* values, int64_t n, float factor, float* sums);

    // Reads whole vectors: the values behind the n-th are to be 0.
    RowFigures (*figures)(const float* values, int64_t n);
};

extern const InnerLoops kPortable;
#if defined(__x86_64__) && !defined(VEA_PORTABLE_ONLY)
#define VEA_X86
extern const InnerLoops kAvx2, kAvx512, kAvx512Bf16;
#endif

struct PixelLoops;

struct CpuPath {
    const char* name;  // avx512_bf16, avx512, avx2 or portable
    const InnerLoops* loops;
    const PixelLoops* pixels;
};

// The fastest path this processor can run. The environment variable VEA_CPU_PATH may name a slower one.
const CpuPath& cpu_path();

}  // namespace vea
