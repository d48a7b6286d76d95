// Built once per instruction set, as inner.cpp is; everything but the table has internal linkage.
#include "pixels.h"

namespace vea::pixels {
namespace {

constexpr int W = VEA_WIDTH;
constexpr int V = kTile / W;  // vectors across a tile
constexpr int R = 12 / V;     // rows at a time: twelve sums fit the registers
typedef float Floats __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef float Four __attribute__((vector_size(16)));

template <class V, class T>
inline V load(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
inline void store(T* to, V v) {
    __builtin_memcpy(to, &v, sizeof v);
}

// A range per lane.
struct Ranges {
    Floats low = Floats{} + std::numeric_limits<float>::infinity();
    Floats high = Floats{} - std::numeric_limits<float>::infinity();
    Ints nan = {};

    void add(Floats v) {
        low = v < low ? v : low;
        high = v > high ? v : high;
        nan |= v != v;
    }

    Range joined() const {
        Range r;
        for (int i = 0; i < W; ++i) {
            r.low = low[i] < r.low ? low[i] : r.low;
            r.high = high[i] > r.high ? high[i] : r.high;
            r.nan = r.nan || nan[i];
        }
        return r;
    }
};

// The last n < W values, and copies of the first of them behind.
inline Floats load_part(const float* from, int64_t n) {
    Floats v = Floats{} + from[0];
    __builtin_memcpy(&v, from, n * sizeof(float));
    return v;
}

Range expand(const float* terms, int64_t rows, int64_t count, const float* tile, float* out, int64_t stride, int64_t n,
             bool accumulate) {
    Ranges ranges;
    for (int64_t y = 0; y < rows; y += R) {
        int64_t row[R];
        for (int r = 0; r < R; ++r) row[r] = y + r < rows ? y + r : rows - 1;  // behind the last row, it once more
        Floats sum[R][V] = {};
        for (int64_t k = 0; k < count; ++k) {
            Floats value[V];
            for (int v = 0; v < V; ++v) value[v] = load<Floats>(tile + k * kTile + v * W);
            for (int r = 0; r < R; ++r) {
                for (int v = 0; v < V; ++v) sum[r][v] += terms[row[r] * count + k] * value[v];
            }
        }
        for (int r = 0; r < R && y + r < rows; ++r) {
            float* const to = out + row[r] * stride;
            for (int v = 0; v < V && v * W < n; ++v) {
                const int64_t left = n - v * W;
                Floats total = sum[r][v];
                if (accumulate) total += left < W ? load_part(to + v * W, left) : load<Floats>(to + v * W);
                if (left >= W) {
                    store(to + v * W, total);
                } else {
                    __builtin_memcpy(to + v * W, &total, left * sizeof(float));
                    total = load_part(to + v * W, left);
                }
                ranges.add(total);
            }
        }
    }
    return ranges.joined();
}

Range gains(const float* weights, int64_t n, float alpha, int64_t channels, float* result) {
    Ranges ranges;
    for (int64_t i = 0; i < n; i += W) {
        const int64_t count = n - i < W ? n - i : W;
        const Floats weight = count < W ? load_part(weights + i, count) : load<Floats>(weights + i);
        ranges.add(weight);
        float gain[W];
        store(gain, weight * (1 - alpha) + alpha);
        float* const to = result + i * channels;
        if (channels == 1) {
            __builtin_memcpy(to, gain, count * sizeof(float));
        } else {  // four at a time: of three channels, the next pixel overwrites the fourth
            for (int64_t j = 0; j < count; ++j) store(to + j * channels, Four{gain[j], gain[j], gain[j], 1.0f});
        }
    }
    return ranges.joined();
}

// A plain loop: of a conversion between bytes and floats written in vectors, GCC makes one of single elements.
void multiply(const uint8_t* __restrict bytes, const float* __restrict gains, int64_t n, uint8_t* __restrict result) {
    for (int64_t i = 0; i < n; ++i) result[i] = uint8_t(int32_t(float(bytes[i]) * gains[i] + 0.5f));
}

}  // namespace

const PixelLoops VEA_TABLE = {expand, gains, multiply};

}  // namespace vea::pixels
