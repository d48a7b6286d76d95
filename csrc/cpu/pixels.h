// The inner loops over the pixels of maps and pictures, one table per instruction set.
#pragma once

#include <cstdint>
#include <limits>

#include "inner.h"

namespace vea {

constexpr int64_t kTile = 32;  // neighbouring pixels whose sums stay in registers

// Smallest and largest of some values. A comparison passes NaN over, so it is noted apart.
struct Range {
    float low = std::numeric_limits<float>::infinity();
    float high = -std::numeric_limits<float>::infinity();
    bool nan = false;

    void join(const Range& other) {
        low = other.low < low ? other.low : low;
        high = other.high > high ? other.high : high;
        nan = nan || other.nan;
    }
};

struct PixelLoops {
    // out[y, x] (+)= sum over k of terms[y, k] * tile[k, x], x < n <= kTile.
    // terms: [rows, count]; tile: [count, kTile]; out: rows `stride` apart. Returns the range of what it wrote.
    Range (*expand)(const float* terms, int64_t rows, int64_t count, const float* tile, float* out, int64_t stride,
                    int64_t n, bool accumulate);

    // gains[i, c] = alpha + (1 - alpha) * weights[i] for c < channels = 1, 3, or 4; the fourth is 1. One float behind
    // the end may be written. Returns the range of the weights.
    Range (*gains)(const float* weights, int64_t n, float alpha, int64_t channels, float* gains);

    // result[i] = bytes[i] * gains[i], to the nearest whole number; 0 <= gains[i] < 2.
    void (*multiply)(const uint8_t* bytes, const float* gains, int64_t n, uint8_t* result);
};

namespace pixels {
extern const PixelLoops kPortable;
#ifdef VEA_X86
extern const PixelLoops kAvx2, kAvx512;
#endif
}  // namespace pixels

}  // namespace vea
