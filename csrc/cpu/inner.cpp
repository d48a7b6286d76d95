// Inner loops in portable vectors. The build compiles this file once per instruction set, with VEA_TABLE naming the
// table to define and VEA_WIDTH the floats per vector. Everything else in here has internal linkage: the linker must
// never take a function built for one instruction set for the sake of another.
#include "inner.h"

#include <type_traits>

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
typedef float Eight __attribute__((vector_size(32)));
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

// The larger ones; b where a is NaN.
inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);  // the compiler's own compares and selects, one after the other
#else
    return select(a > b, a, b);
#endif
}

// e^x for x <= 88; 0 below -87.3, NaN stays NaN. 2^n * p(r) with x log2(e) = n + r, |r| <= 1/2; p is the polynomial of
// least relative error (2e-9) with p(0) = 1. To 2 ulp near 0, to |x| ulp far from it: as exact as x, a rounded score.
inline Floats exponential(Floats x) {
    const float log2_e = 1.44269504f;
#if defined(__AVX512F__)
    const Floats n = (Floats)_mm512_roundscale_ps((__m512)(x * log2_e), _MM_FROUND_TO_NEAREST_INT);
#else
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const Floats n = (x * log2_e + magic) - magic;
#endif
    const Floats r = x * log2_e - n;
    Floats p = splat(1.5353362e-4f);
    p = p * r + 1.3398875e-3f;
    p = p * r + 9.6184374e-3f;
    p = p * r + 5.5503325e-2f;
    p = p * r + 2.4022648e-1f;
    p = p * r + 6.9314720e-1f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    const __mmask16 tiny = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-87.3f), _CMP_LT_OQ);
    return (Floats)_mm512_maskz_scalef_ps(_knot_mask16(tiny), (__m512)p, (__m512)n);
#else
    const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
    return select(x < splat(-87.3f), splat(0), p * (Floats)bits);
#endif
}

// ln x for normal x > 0 to 1 ulp, NaN stays NaN: x = 2^n * m with m in [sqrt 1/2, sqrt 2), and the polynomial of the
// Cephes library's logf for ln m.
inline Floats logarithm(Floats x) {
    const Ints n = ((Ints)x - 0x3f3504f3) >> 23;
    const Floats r = (Floats)((Ints)x - (n << 23)) - 1.0f;
    const Floats e = __builtin_convertvector(n, Floats);
    Floats p = splat(7.0376836292e-2f);
    p = p * r - 1.1514610310e-1f;
    p = p * r + 1.1676998740e-1f;
    p = p * r - 1.2420140846e-1f;
    p = p * r + 1.4249322787e-1f;
    p = p * r - 1.6668057665e-1f;
    p = p * r + 2.0000714765e-1f;
    p = p * r - 2.4999993993e-1f;
    p = p * r + 3.3333331174e-1f;
    const Floats z = r * r;
    return r + (p * r * z - 0.5f * z + e * -2.12194440e-4f) + e * 0.693359375f + (x - x);
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
#if defined(__AVX512F__)
    return (Floats)((Words)_mm512_cvtepu16_epi32(load<__m256i>(from)) << 16);  // the compiler's own takes twice as many steps
#elif defined(__AVX2__)
    return (Floats)((Words)_mm256_cvtepu16_epi32(load<__m128i>(from)) << 16);
#else
    return (Floats)(__builtin_convertvector(load<Halves>(from), Words) << 16);
#endif
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

// One row as floats in `tile`, padded with zeros to a multiple of W at least.
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

// The lanes in one, `join` by `join` of what is left of the vector and its other half.
template <class V, class Join>
inline float in_one(V v, Join join) {
    if constexpr (sizeof(V) == 64) {
        return in_one(join(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)), join);
    } else if constexpr (sizeof(V) == 32) {
        return in_one(join(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7)), join);
    } else {
        v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
        return join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2))[0];
    }
}

inline float sum(Floats v) {
    return in_one(v, [](auto a, auto b) { return a + b; });
}

inline float maximum(Floats v) {  // of those that are not NaN
    return in_one(v, [](auto a, auto b) { return a > b ? a : b; });
}

template <class V>
inline Eight fold(V v) {
    if constexpr (sizeof(V) == 64) {
        return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    } else {
        return v;
    }
}

// The lane sums of four vectors, as the four lanes of one. The shuffles stay within 128 bits, where they are cheap.
inline Four sums(Floats v0, Floats v1, Floats v2, Floats v3) {
    const Eight a = fold(v0), b = fold(v1), c = fold(v2), d = fold(v3);
    const Eight ab = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
                     __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Eight cd = __builtin_shufflevector(c, d, 0, 8, 1, 9, 4, 12, 5, 13) +
                     __builtin_shufflevector(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    const Eight all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                      __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(all, all, 0, 1, 2, 3) + __builtin_shufflevector(all, all, 4, 5, 6, 7);
}

// How keys are multiplied by queries. Widened: as floats, W at once, whatever dtype they are stored in.
template <Dtype dtype>
struct Widened {
    using Query = float;
    using Vector = Floats;
    static constexpr int64_t step = W;
    static Vector key(const void* row, int64_t d) {
        if constexpr (dtype == Dtype::f32) return load<Floats>(static_cast<const float*>(row) + d);
        if constexpr (dtype == Dtype::f16) return widen_f16(static_cast<const uint16_t*>(row) + d);
        if constexpr (dtype == Dtype::bf16) return widen_bf16(static_cast<const uint16_t*>(row) + d);
    }
    static Floats add(Floats sum, Vector query, Vector key) { return sum + query * key; }
};

#if defined(__AVX512BF16__)
// As they are, in pairs: an instruction multiplies two and adds both products to a float.
struct Paired {
    using Query = uint16_t;
    using Vector = __m512bh;
    static constexpr int64_t step = 2 * W;
    static Vector key(const void* row, int64_t d) { return load<Vector>(static_cast<const uint16_t*>(row) + d); }
    static Floats add(Floats sum, Vector query, Vector key) { return (Floats)_mm512_dpbf16_ps((__m512)sum, query, key); }
};
#endif

constexpr int kMostHeads = W == 16 ? 7 : 3;  // whose products with four keys have room in the registers of AVX-512, of AVX2

// Four keys against H heads. What is used again stays in registers: the sums (hence the unrolled loops), and of queries and
// keys those that are fewer.
template <int H, class Product>
inline void dots_of_four(const typename Product::Query* queries, int64_t padded, const void* const keys[4], int64_t length,
                         float scale, float* scores, int64_t n) {
    using Vector = typename Product::Vector;
    Floats partial[H][4];
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) partial[h][i] = Floats{};
    }
    for (int64_t d = 0; d < length; d += Product::step) {
        Vector q[H], k[4];
#pragma GCC unroll 8
        for (int h = 0; h < H && H < 4; ++h) q[h] = load<Vector>(queries + h * padded + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            k[i] = Product::key(keys[i], d);
#pragma GCC unroll 8
            for (int h = 0; h < H && H < 4; ++h) partial[h][i] = Product::add(partial[h][i], q[h], k[i]);
        }
#pragma GCC unroll 8
        for (int h = 0; h < H && H >= 4; ++h) {
            q[h] = load<Vector>(queries + h * padded + d);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) partial[h][i] = Product::add(partial[h][i], q[h], k[i]);
        }
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
        const Four result = scale * sums(partial[h][0], partial[h][1], partial[h][2], partial[h][3]);
        if (n == 4) {
            store(scores + h * kBlock, result);
        } else {
            for (int64_t i = 0; i < n; ++i) scores[h * kBlock + i] = result[i];
        }
    }
}

// One head, whose keys consist of whole vectors. There is so little to compute that memory sets the pace, and memory is
// fastest where it is read in order: a key from end to end, then the next. It also sees by itself what comes next.
template <class Product>
void dots_in_order(const typename Product::Query* query, const char* keys, int64_t bytes, int64_t dim, float scale,
                   int64_t n, float* scores) {
    for (int64_t t = 0; t < n; t += 4) {
        Floats partial[4];
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; ++i) {
            const char* key = keys + (t + i < n ? t + i : t) * bytes;
            partial[i] = Floats{};
            for (int64_t d = 0; d < dim; d += Product::step) {
                partial[i] = Product::add(partial[i], load<typename Product::Vector>(query + d), Product::key(key, d));
            }
        }
        const Four result = scale * sums(partial[0], partial[1], partial[2], partial[3]);
        for (int64_t i = 0; i < 4 && t + i < n; ++i) scores[t + i] = result[i];
    }
}

// Asks for a row of keys before it is needed: with one request at a time, memory would wait for the arithmetic. Into the
// second-level cache, as the first takes too few requests at once for it.
inline void prefetch(const char* row, int64_t bytes) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

// Calls `body` with n, 1 <= n <= most, as a constant.
template <int most, class Body>
inline void with_heads(int64_t n, const Body& body) {
    if constexpr (most > 1) {
        if (n < most) return with_heads<most - 1>(n, body);
    }
    body(std::integral_constant<int, most>{});
}

// Several heads, or keys that do not consist of whole vectors: these are widened into a tile first (`whole` is false).
template <class Product>
void dots_in_tiles(const typename Product::Query* queries, int64_t heads, const char* keys, int64_t bytes, Dtype dtype,
                   int64_t dim, bool whole, float scale, int64_t n, float* scores) {
    constexpr int64_t ahead = 24;  // keys between the one in use and the one asked for
    const int64_t padded = (dim + kLanes - 1) / kLanes * kLanes;
    const int64_t length = (dim + W - 1) / W * W;
    const int64_t passes = (heads + kMostHeads - 1) / kMostHeads;
    const int64_t fetches = (4 + passes - 1) / passes;  // in each pass: a burst would block loads
    alignas(64) float tile[4 * kMaxDim];
    for (int64_t t = 0; t < n; t += 4) {
        const int64_t count = n - t < 4 ? n - t : 4;
        const void* rows[4];
        for (int64_t i = 0; i < 4; ++i) {
            const char* key = keys + (t + (i < count ? i : 0)) * bytes;  // behind the last, repeat one and drop the result
            rows[i] = whole ? static_cast<const void*>(key) : tile + i * kMaxDim;
            if (!whole) widen_row(key, dtype, dim, tile + i * kMaxDim);
        }
        int64_t fetched = 0;
        for (int64_t h = 0, pass = 0; pass < passes; ++pass) {
            for (const int64_t last = fetched + fetches; fetched < last && fetched < 4; ++fetched) {
                prefetch(keys + (t + ahead + fetched) * bytes, dim * (dtype == Dtype::f32 ? 4 : 2));
            }
            const auto some = [&](auto count_of_heads) {
                dots_of_four<count_of_heads(), Product>(queries + h * padded, padded, rows, length, scale,
                                                        scores + h * kBlock + t, count);
                h += count_of_heads();
            };
            with_heads<kMostHeads>((heads - h + passes - pass - 1) / (passes - pass), some);  // shared out evenly
        }
    }
}

template <class Product>
void dots_of_whole(const typename Product::Query* queries, int64_t heads, const char* keys, int64_t bytes, Dtype dtype,
                   int64_t dim, float scale, int64_t n, float* scores) {
    if (heads == 1) return dots_in_order<Product>(queries, keys, bytes, dim, scale, n, scores);
    dots_in_tiles<Product>(queries, heads, keys, bytes, dtype, dim, true, scale, n, scores);
}

void dots(const float* queries, int64_t heads, const void* keys, Dtype dtype, int64_t stride, int64_t dim, float scale,
          int64_t n, float* scores) {
    const auto* first = static_cast<const char*>(keys);
    const int64_t bytes = stride * (dtype == Dtype::f32 ? 4 : 2);
#if defined(__AVX512BF16__)
    if (dtype == Dtype::bf16 && dim % Paired::step == 0) {
        constexpr int64_t most = 8;
        alignas(64) uint16_t paired[most * kMaxDim];
        for (int64_t h = 0; h < heads; h += most) {
            const int64_t some = heads - h < most ? heads - h : most;
            for (int64_t d = 0; d < some * dim; d += W) {  // exact: these floats were bfloat16
                store(paired + d, _mm512_cvtneps_pbh((__m512)load<Floats>(queries + h * dim + d)));
            }
            dots_of_whole<Paired>(paired, some, first, bytes, dtype, dim, scale, n, scores + h * kBlock);
        }
        return;
    }
#endif
    // Up to two passes over the keys widen them on the way; more share the work of widening them into a tile.
    const bool whole = dim % W == 0 && (dtype == Dtype::f32 || heads <= 2 * kMostHeads);
    if (!whole) {
        dots_in_tiles<Widened<Dtype::f32>>(queries, heads, first, bytes, dtype, dim, false, scale, n, scores);
    } else {
        const auto of_whole = dtype == Dtype::f32   ? dots_of_whole<Widened<Dtype::f32>>
                              : dtype == Dtype::f16 ? dots_of_whole<Widened<Dtype::f16>>
                                                    : dots_of_whole<Widened<Dtype::bf16>>;
        of_whole(queries, heads, first, bytes, dtype, dim, scale, n, scores);
    }
}

void widen(const void* row, Dtype dtype, int64_t dim, float* to) {
    widen_row(row, dtype, dim, to);
    for (int64_t d = (dim + W - 1) / W * W; d % kLanes != 0; d += W) store(to + d, Floats{});
}

// Loops over scores go in whole vectors, so their arrays have room up to the next multiple of kLanes.

float shape(float* scores, int64_t n, float softcap, const float* bias) {
    const Floats none = splat(minus_infinity());
    for (int64_t i = 0; i < n && (softcap > 0 || bias); i += W) {
        Floats s = load<Floats>(scores + i);
        if (softcap > 0) s = softcap * tangent(s / softcap);
        if (bias) {
            const Floats b = load<Floats>(bias + i);
            s = select(b == none, none, s + b);
        }
        store(scores + i, s);
    }
    for (int64_t i = n; i % W != 0; ++i) scores[i] = minus_infinity();  // behind the end: no weight
    Floats largest = none;
    for (int64_t i = 0; i < n; i += W) largest = larger(load<Floats>(scores + i), largest);
    return maximum(largest);
}

float exponentials(const float* scores, int64_t n, float shift, float* to) {
    Floats total = {};
    for (int64_t i = 0; i < n; i += W) {
        const Floats e = exponential(load<Floats>(scores + i) - shift);
        total += e;
        store(to + i, e);
    }
    return sum(total);
}

void add_scaled(const float* values, int64_t n, float factor, float* sums) {
    int64_t i = 0;
    for (; i + W <= n; i += W) store(sums + i, load<Floats>(sums + i) + load<Floats>(values + i) * factor);
    for (; i < n; ++i) sums[i] += values[i] * factor;
}

RowFigures figures(const float* values, int64_t n) {
    Floats mass = {}, weighted_log = {}, peak = {};
    for (int64_t i = 0; i < n; i += W) {
        const Floats a = load<Floats>(values + i);
        const Ints counts = a > splat(1e-37f);  // where a ln a is not 0, to the last bit of any sum
        mass += a;
        weighted_log += select(counts, a * logarithm(select(counts, a, splat(1.0f))), a * 0.0f);
        peak = larger(a, peak);
    }
    return {sum(mass), sum(weighted_log), maximum(peak)};
}

}  // namespace

const InnerLoops VEA_TABLE = {widen, dots, shape, exponentials, add_scaled, figures};

}  // namespace vea
