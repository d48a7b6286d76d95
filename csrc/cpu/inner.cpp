// Inner loops in portable vectors. The build compiles this file once per instruction set, with VEA_TABLE naming the
// table to define and VEA_WIDTH the floats per vector. Everything else in here has internal linkage: the linker must
// never take a function built for one instruction set for the sake of another.
#include "inner.h"

#include "../numerics.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace vea {
namespace {

constexpr int W = VEA_WIDTH;
typedef float Floats __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef uint32_t Words __attribute__((vector_size(W * 4)));
typedef uint16_t Halves __attribute__((vector_size(W * 2)));
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

inline Floats splat(float x) { return Floats{} + x; }

inline Floats select(Ints condition, Floats yes, Floats no) {
    return (Floats)(((Ints)yes & condition) | ((Ints)no & ~condition));
}

// e^x for x <= 88 to 1 ulp; 0 below -87.3, NaN stays NaN. 2^n * p(r) with x = n ln 2 + r, |r| <= ln 2 / 2.
// ln 2 is split so that n * high is exact; p is the minimax polynomial of the Cephes library's expf.
inline Floats exponential(Floats x) {
    const Ints tiny = x < splat(-87.3f);
    x = select(tiny, splat(-87.3f), x);
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const Floats n = (x * 1.44269504f + magic) - magic;
    const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    Floats p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
    return select(tiny, splat(0), p * (Floats)bits);
}

// tanh by its odd minimax polynomial (Cephes) near 0, where 1 - 2 / (e^2x + 1) would lose digits.
inline Floats tangent(Floats x) {
    const Floats magnitude = (Floats)((Ints)x & 0x7fffffff);
    const Floats z = x * x;
    Floats p = splat(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const Floats near = p * z * x + x;
    const Floats bounded = select(magnitude > splat(10.0f), splat(10.0f), magnitude);  // tanh(10) rounds to 1
    const Floats far = 1.0f - 2.0f / (exponential(bounded * 2.0f) + 1.0f);
    const Floats signed_far = (Floats)((Ints)far | ((Ints)x & (Ints)(Words{} + 0x80000000u)));
    return select(magnitude < splat(0.625f), near, signed_far);
}

inline Floats widen_bf16(const uint16_t* from) {
    return (Floats)(__builtin_convertvector(load<Halves>(from), Words) << 16);
}

inline Floats widen_f16(const uint16_t* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(load<__m256i>(from));
#elif defined(__F16C__)
    return (Floats)_mm256_cvtph_ps(load<__m128i>(from));
#else
    float lanes[W];
    for (int i = 0; i < W; ++i) lanes[i] = f16_to_float(from[i]);
    return load<Floats>(lanes);
#endif
}

// One row as floats in `tile`, padded with zeros to a multiple of W.
inline void widen_row(const void* row, Dtype dtype, int64_t dim, float* tile) {
    int64_t d = 0;
    if (dtype == Dtype::f32) {
        for (; d + W <= dim; d += W) store(tile + d, load<Floats>(static_cast<const float*>(row) + d));
    } else if (dtype == Dtype::f16) {
        for (; d + W <= dim; d += W) store(tile + d, widen_f16(static_cast<const uint16_t*>(row) + d));
    } else {
        for (; d + W <= dim; d += W) store(tile + d, widen_bf16(static_cast<const uint16_t*>(row) + d));
    }
    if (d == dim) return;
    store(tile + d, Floats{});
    for (; d < dim; ++d) tile[d] = load_float(row, dtype, d);
}

inline Four quarter_sum(Floats v) {
    if constexpr (W == 16) {
        return (__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7)) +
               (__builtin_shufflevector(v, v, 8, 9, 10, 11) + __builtin_shufflevector(v, v, 12, 13, 14, 15));
    } else {
        return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    }
}

inline float sum(Floats v) {
    const Four q = quarter_sum(v);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

// The lane sums of four vectors, as the four lanes of one.
inline Four sums(const Floats v[4]) {
    const Four a = quarter_sum(v[0]), b = quarter_sum(v[1]), c = quarter_sum(v[2]), d = quarter_sum(v[3]);
    const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

// Four keys against H heads. At H = 3 the twelve sums, three queries and a key fill the sixteen registers of AVX2.
template <int H>
inline void dots_of_four(const float* queries, int64_t padded, const float* const keys[4], int64_t length, float* scores,
                         int64_t n) {
    Floats partial[H][4] = {};
    for (int64_t d = 0; d < length; d += W) {
        Floats q[H];
        for (int h = 0; h < H; ++h) q[h] = load<Floats>(queries + h * padded + d);
        for (int i = 0; i < 4; ++i) {
            const Floats k = load<Floats>(keys[i] + d);  // once for all heads: loads are the bottleneck
            for (int h = 0; h < H; ++h) partial[h][i] += q[h] * k;
        }
    }
    for (int h = 0; h < H; ++h) {
        const Four result = sums(partial[h]);
        if (n == 4) {
            store(scores + h * kBlock, result);
        } else {
            for (int64_t i = 0; i < n; ++i) scores[h * kBlock + i] = result[i];
        }
    }
}

void dots(const float* queries, int64_t heads, const void* keys, Dtype dtype, int64_t stride, int64_t dim, int64_t n,
          float* scores) {
    const int64_t padded = (dim + kLanes - 1) / kLanes * kLanes;
    const int64_t length = (dim + W - 1) / W * W;
    const bool direct = dtype == Dtype::f32 && dim % W == 0;
    const int64_t row_bytes = stride * (dtype == Dtype::f32 ? 4 : 2);
    alignas(64) float tile[4 * kMaxDim];
    for (int64_t t = 0; t < n; t += 4) {
        const int64_t count = n - t < 4 ? n - t : 4;
        const float* rows[4];
        for (int64_t i = 0; i < 4; ++i) {
            const int64_t key = t + (i < count ? i : 0);  // behind the last key, repeat a valid one and drop the result
            const void* row = static_cast<const char*>(keys) + key * row_bytes;
            rows[i] = direct ? static_cast<const float*>(row) : tile + i * kMaxDim;
            if (!direct) widen_row(row, dtype, dim, tile + i * kMaxDim);
        }
        int64_t h = 0;
        for (; h + 3 <= heads; h += 3) {
            dots_of_four<3>(queries + h * padded, padded, rows, length, scores + h * kBlock + t, count);
        }
        if (heads - h == 2) dots_of_four<2>(queries + h * padded, padded, rows, length, scores + h * kBlock + t, count);
        if (heads - h == 1) dots_of_four<1>(queries + h * padded, padded, rows, length, scores + h * kBlock + t, count);
    }
}

// The three loops below go in whole vectors, so their arrays have room up to the next multiple of kLanes.

float shape(float* scores, int64_t n, float scale, float softcap, const float* bias) {
    const Floats none = splat(minus_infinity());
    Ints lane;
    for (int l = 0; l < W; ++l) lane[l] = l;
    Floats largest = none;
    for (int64_t i = 0; i < n; i += W) {
        Floats s = load<Floats>(scores + i) * scale;
        if (softcap > 0) s = softcap * tangent(s / softcap);
        if (bias) {
            const Floats b = load<Floats>(bias + i);
            s = select(b == none, none, s + b);
        }
        s = select(lane < Ints{} + int32_t(n - i), s, none);  // behind the end: no weight
        store(scores + i, s);
        largest = select(s > largest, s, largest);
    }
    float result = minus_infinity();
    for (int l = 0; l < W; ++l) result = largest[l] > result ? largest[l] : result;
    return result;
}

float exp_sum(const float* scores, int64_t n, float shift) {
    Floats total = {};
    for (int64_t i = 0; i < n; i += W) total += exponential(load<Floats>(scores + i) - shift);
    return sum(total);
}

void add_probabilities(const float* scores, int64_t n, float shift, float factor, float* probability) {
    for (int64_t i = 0; i < n; i += W) {
        const Floats p = exponential(load<Floats>(scores + i) - shift);
        store(probability + i, load<Floats>(probability + i) + p * factor);
    }
}

}  // namespace

const InnerLoops VEA_TABLE = {dots, shape, exp_sum, add_probabilities};

}  // namespace vea
