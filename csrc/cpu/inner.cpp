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

inline Floats widen_bf16(Halves from) {
#if defined(__AVX512F__)
    return (Floats)((Words)_mm512_cvtepu16_epi32((__m256i)from) << 16);  // the compiler's own takes twice as many steps
#elif defined(__AVX2__)
    return (Floats)((Words)_mm256_cvtepu16_epi32((__m128i)from) << 16);
#else
    return (Floats)(__builtin_convertvector(from, Words) << 16);
#endif
}

inline Floats widen_f16(Halves from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps((__m256i)from);
#elif defined(__F16C__)
    return (Floats)_mm256_cvtph_ps((__m128i)from);
#else
    Floats lanes;
    for (int i = 0; i < W; ++i) lanes[i] = f16_to_float(from[i]);
    return lanes;
#endif
}

// One row as floats in `tile`, padded with zeros to a multiple of W at least.
inline void widen_row(const void* row, Dtype dtype, int64_t dim, float* tile) {
    int64_t d = 0;
    if (dtype == Dtype::f32) {
        for (; d + W <= dim; d += W) store(tile + d, load<Floats>(static_cast<const float*>(row) + d));
    } else if (dtype == Dtype::f16) {
        for (; d + W <= dim; d += W) store(tile + d, widen_f16(load<Halves>(static_cast<const uint16_t*>(row) + d)));
    } else {
        for (; d + W <= dim; d += W) store(tile + d, widen_bf16(load<Halves>(static_cast<const uint16_t*>(row) + d)));
    }
    if (d == dim) return;
#if defined(__AVX512F__)
    const __mmask16 there = (1 << (dim - d)) - 1;
    if (dtype == Dtype::f32) {
        store(tile + d, _mm512_maskz_loadu_ps(there, static_cast<const float*>(row) + d));
    } else {
        const auto halves = (Halves)_mm256_maskz_loadu_epi16(there, static_cast<const uint16_t*>(row) + d);
        store(tile + d, dtype == Dtype::f16 ? widen_f16(halves) : widen_bf16(halves));
    }
#else
    store(tile + d, Floats{});
    for (; d < dim; ++d) tile[d] = load_float(row, dtype, d);
#endif
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

// a's and b's lanes, half of each added to the other half. The shuffles stay within 128 bits, where they are cheap.
inline Floats join(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (Floats)_mm512_unpackhi_ps((__m512)a, (__m512)b);
#else
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
           __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
#endif
}

// The lane sums of four vectors' lower halves, then of their upper ones. ac: join(a, c).
template <class V>
inline Eight sums_of_halves(V ac, V bd) {
    const V all = join(ac, bd);  // a part of the four sums in each 128 bits
    if constexpr (sizeof(V) == 64) {
        return __builtin_shufflevector(all, all, 0, 1, 2, 3, 8, 9, 10, 11) +
               __builtin_shufflevector(all, all, 4, 5, 6, 7, 12, 13, 14, 15);
    } else {
        return all;
    }
}

// The lane sums of four vectors.
inline Four sums(Floats ac, Floats bd) {
    const Eight halves = sums_of_halves(ac, bd);
    return __builtin_shufflevector(halves, halves, 0, 1, 2, 3) + __builtin_shufflevector(halves, halves, 4, 5, 6, 7);
}

// The vector whose lower half lies at `a`, and its upper one at `b`.
template <class V>
inline V both(const void* a, const void* b) {
#if defined(__AVX512F__)  // the compiler's own takes one step more
    if constexpr (sizeof(V) == 64) {
        return (V)_mm512_inserti64x4(_mm512_castsi256_si512(load<__m256i>(a)), load<__m256i>(b), 1);
    } else {
        return (V)_mm256_inserti128_si256(_mm256_castsi128_si256(load<__m128i>(a)), load<__m128i>(b), 1);
    }
#else
    return __builtin_shufflevector(load<Four>(a), load<Four>(b), 0, 1, 2, 3, 4, 5, 6, 7);
#endif
}

// How keys are multiplied by queries. Widened: as floats, W at once, whatever dtype they are stored in.
template <Dtype dtype>
struct Widened {
    using Query = float;
    using Vector = Floats;
    using Stored = std::conditional_t<dtype == Dtype::f32, Floats, Halves>;
    static constexpr int64_t half = W / 2, size = bytes_of_float(dtype);
    static constexpr bool slower_than_memory = true;
    static Vector query(const float* a, const float* b) { return both<Floats>(a, b); }
    static Vector key(Stored stored) {
        if constexpr (dtype == Dtype::f32) return stored;
        if constexpr (dtype == Dtype::f16) return widen_f16(stored);
        if constexpr (dtype == Dtype::bf16) return widen_bf16(stored);
    }
    static Floats add(Floats sum, Vector query, Vector key) { return sum + query * key; }
};

#if defined(__AVX512BF16__)
// As they are, in pairs: an instruction multiplies two and adds both products to a float.
struct Paired {
    using Query = uint16_t;
    using Vector = __m512bh;
    using Stored = __m512bh;
    static constexpr int64_t half = W, size = 2;
    static constexpr bool slower_than_memory = false;
    static Vector query(const float* a, const float* b) {  // exact: these floats were bfloat16
        return _mm512_cvtne2ps_pbh((__m512)load<Floats>(b), (__m512)load<Floats>(a));
    }
    static Vector key(Stored stored) { return stored; }
    static Floats add(Floats sum, Vector query, Vector key) { return (Floats)_mm512_dpbf16_ps((__m512)sum, query, key); }
};
#endif

constexpr int kMostHeads = W == 16 ? 7 : 3;  // in a pass over the keys: so many sums have room in registers
constexpr int kSharing = W == 16 ? 2 : 1;    // keys in a vector: putting them together costs less than it saves, or more
constexpr int64_t kAhead = 24;               // keys between the one in use and the one asked for from memory

// H heads against the keys of four vectors at a time. Of two keys that share one, the sums lie in half as many lanes, and
// adding up lanes takes from the products, the more where another thread runs on the same core. So it is begun at once, to
// have less to keep, but ended beside the next keys' products. Keys are asked for line by line, into the second-level cache,
// as the first takes too few requests at once for it. packed: for each step, H vectors of queries, which hold the same twice
// if keys share.
template <int H, class Product>
void dots_of_heads(const typename Product::Query* packed, const char* keys, int64_t bytes, int64_t ahead, int64_t length,
                   float scale, int64_t n, float* scores) {
    using Vector = typename Product::Vector;
    using Stored = typename Product::Stored;
    constexpr int V = W == 16 || H <= 2 ? 4 : 3, T = V * kSharing;  // vectors and keys at a time
    constexpr int64_t step = 2 * Product::half / kSharing * Product::size;
    alignas(64) Floats joined[H][2];  // of the keys before those at t
    int added = H;                    // heads whose sums of these keys are ready
    for (int64_t t = 0;; t += T) {
        const auto add_one = [&] {
            const auto& [ac, bd] = joined[added];
            float* to = scores + added++ * kRow + t - T;
            if constexpr (kSharing == 2) {
                store(to, scale * sums_of_halves(ac, bd));
            } else {
                store(to, scale * sums(ac, bd));
            }
        };
        if (t >= n) {
            while (added < H) add_one();
            return;
        }
        const char* key[T];
        Floats partial[H][V] = {};
#pragma GCC unroll 8
        for (int i = 0; i < T; ++i) key[i] = keys + (t + i < n ? t + i : t) * bytes;  // behind the last, repeat one
        // On a page met unprepared, a request to the second-level cache holds up the products, one to the first does not.
        if (Product::slower_than_memory) __builtin_prefetch(key[0] + ahead, 0, 3);
        const auto* query = packed;
        for (int64_t at = 0; at < length * Product::size; at += step) {
            Vector k[V];
#pragma GCC unroll 4
            for (int i = 0; i < V; ++i) {
                if constexpr (kSharing == 2) {
                    k[i] = Product::key(both<Stored>(key[i] + at, key[i + V] + at));
                } else {
                    k[i] = Product::key(load<Stored>(key[i] + at));
                }
            }
            if (at % 64 == 0) {
#pragma GCC unroll 8
                for (int i = 0; i < T; ++i) __builtin_prefetch(key[i] + ahead + at, 0, 2);
            }
#pragma GCC unroll 8
            for (int h = 0; h < H; ++h, query += 2 * Product::half) {
                Vector q = load<Vector>(query);
#if defined(__AVX512F__)
                asm("" : "+v"(q));  // loaded once: as operands in memory, V loads would take longer than V products
#elif defined(__AVX2__)
                asm("" : "+x"(q));
#endif
#pragma GCC unroll 4
                for (int i = 0; i < V; ++i) partial[h][i] = Product::add(partial[h][i], q, k[i]);
            }
            if (added < H && at > step) add_one();  // not sooner: what is on its way to memory would have to arrive first
        }
        while (added < H) add_one();
#pragma GCC unroll 8
        for (int h = 0; h < H; ++h) {
            joined[h][0] = join(partial[h][0], partial[h][2]);
            joined[h][1] = join(partial[h][1], partial[h][V - 1]);
        }
        added = 0;
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
            for (int64_t d = 0; d < dim; d += 2 * Product::half) {
                const auto stored = load<typename Product::Stored>(key + d * Product::size);
                partial[i] = Product::add(partial[i], load<typename Product::Vector>(query + d), Product::key(stored));
            }
        }
        store(scores + t, scale * sums(join(partial[0], partial[2]), join(partial[1], partial[3])));
    }
}

// Calls `body` with n, 1 <= n <= most, as a constant.
template <int most, class Body>
inline void with_heads(int64_t n, const Body& body) {
    if constexpr (most > 1) {
        if (n < most) return with_heads<most - 1>(n, body);
    }
    body(std::integral_constant<int, most>{});
}

// Touches the pages of the keys behind the n-th. Where one is met unprepared, its address is looked up while all else waits;
// of these look-ups, several at a time take hardly longer than one.
inline void touch_next(const char* keys, int64_t bytes, int64_t n) {
    constexpr int64_t page = 4096;
    if (bytes * n > 64 * page) return;  // more than the first-level address cache holds
    const char* first = keys + (n + kAhead) * bytes;
#pragma GCC unroll 1
    for (int64_t i = 0; i < bytes * n; i += page) __builtin_prefetch(first + i, 0, 2);
}

// In as many passes over the keys as the heads take: they lie in the second-level cache at least, which keeps up. Keys that
// do not consist of whole vectors are widened into a tile first (`whole` is false).
template <class Product>
void dots_of_all(const float* queries, int64_t heads, const char* keys, int64_t bytes, Dtype dtype, int64_t dim,
                    bool whole, float scale, int64_t n, float* scores) {
    constexpr int64_t tile_keys = 24;
    const int64_t padded = (dim + kLanes - 1) / kLanes * kLanes, length = (dim + W - 1) / W * W;
    alignas(64) typename Product::Query packed[kSharing * kMostHeads * kMaxDim];
    alignas(64) float tile[tile_keys * kMaxDim];
    if (!Product::slower_than_memory && heads > 1) touch_next(keys, bytes, n);  // one head's keys are read in order
    int64_t from = 0;  // the first head of the pass
    const auto pass = [&](auto count) {
        constexpr int H = count();
        const bool in_order = whole && heads == 1;
        constexpr int64_t half = Product::half;
        const int64_t step = in_order ? 2 * half : 2 * half / kSharing;
        auto* vector = packed;
        for (int64_t d = 0; d < length; d += step) {
            for (int64_t h = 0; h < H; ++h, vector += 2 * half) {
                const float* first = queries + (from + h) * padded + d;
                store(vector, Product::query(first, first + step - half));
            }
        }
        float* to = scores + from * kRow;
        if (in_order) {
            dots_in_order<Product>(packed, keys, bytes, dim, scale, n, to);
        } else if (whole) {
            dots_of_heads<H, Product>(packed, keys, bytes, kAhead * bytes, length, scale, n, to);
        } else {
            for (int64_t t = 0; t < n; t += tile_keys) {
                const int64_t some = n - t < tile_keys ? n - t : tile_keys;
                for (int64_t i = 0; i < some; ++i) {
                    const char* key = keys + (t + i) * bytes;
                    for (int64_t b = 0; b < dim * bytes_of_float(dtype); b += 64) {
                        __builtin_prefetch(key + kAhead * bytes + b, 0, 2);
                    }
                    widen_row(key, dtype, dim, tile + i * length);
                }
                const auto* first = reinterpret_cast<const char*>(tile);
                dots_of_heads<H, Product>(packed, first, length * 4, 0, length, scale, some, to + t);
            }
        }
        from += H;
    };
    for (int64_t left = (heads + kMostHeads - 1) / kMostHeads; left > 0; --left) {
        with_heads<kMostHeads>((heads - from + left - 1) / left, pass);  // shared out evenly
    }
}

void dots(const float* queries, int64_t heads, const void* keys, Dtype dtype, int64_t stride, int64_t dim, float scale,
          int64_t n, float* scores) {
    const auto* first = static_cast<const char*>(keys);
    const int64_t bytes = stride * bytes_of_float(dtype);
    const bool whole = dim % W == 0;
    auto of_all = !whole || dtype == Dtype::f32 ? dots_of_all<Widened<Dtype::f32>>
                  : dtype == Dtype::f16         ? dots_of_all<Widened<Dtype::f16>>
                                                : dots_of_all<Widened<Dtype::bf16>>;
#if defined(__AVX512BF16__)
    if (dtype == Dtype::bf16 && dim % (2 * Paired::half) == 0) of_all = dots_of_all<Paired>;
#endif
    of_all(queries, heads, first, bytes, dtype, dim, whole, scale, n, scores);
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
