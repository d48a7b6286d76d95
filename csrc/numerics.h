// Per-element maths that host and device share, so that both read and order numbers alike.
#pragma once

#include <cstdint>
#include <cstring>

#include "problem.h"

namespace vea {
namespace {  // internal linkage: files built for different instruction sets must never share an instance

VEA_HD float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

VEA_HD uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

VEA_HD float bf16_to_float(uint16_t half) { return bits_to_float(uint32_t(half) << 16); }

VEA_HD float f16_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t rest = half & 0x7fff;
    if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
    if (rest >= 0x0400) return bits_to_float(sign | ((rest << 13) + 0x38000000));        // 112 = 127 - 15 exponents up
    const float tiny = float(rest) * 5.9604644775390625e-8f;  // subnormal: a multiple of 2^-24
    return sign ? -tiny : tiny;
}

// Element `i` of a float array (any float dtype).
VEA_HD float load_float(const void* data, Dtype dtype, int64_t i) {
    if (dtype == Dtype::f32) return static_cast<const float*>(data)[i];
    const uint16_t half = static_cast<const uint16_t*>(data)[i];
    return dtype == Dtype::f16 ? f16_to_float(half) : bf16_to_float(half);
}

// Element `i` of an index array (i32 or i64).
VEA_HD int64_t load_index(const void* data, Dtype dtype, int64_t i) {
    return dtype == Dtype::i64 ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
}

VEA_HD float minus_infinity() { return bits_to_float(0xff800000); }
VEA_HD float quiet_nan() { return bits_to_float(0x7fc00000); }

// Transformers writes "may not look" as the lowest finite number of the mask's dtype, others as -infinity.
VEA_HD float masked_from(Dtype dtype) {
    return dtype == Dtype::f16 ? -65504.0f : dtype == Dtype::bf16 ? bits_to_float(0xff7f0000) : bits_to_float(0xff7fffff);
}

// What a mask element adds to a score: 0 or the additive value; -infinity where the key may not be seen.
VEA_HD float mask_value(const void* data, Dtype dtype, int64_t i) {
    if (dtype == Dtype::boolean) return static_cast<const uint8_t*>(data)[i] ? 0.0f : minus_infinity();
    const float value = load_float(data, dtype, i);
    return value <= masked_from(dtype) ? minus_infinity() : value;
}

// Order-preserving map of floats to unsigned integers (-0 = +0), for top-k selection. NaN has no place: skip it before.
VEA_HD uint32_t sort_key(float value) {
    const uint32_t bits = float_to_bits(value + 0.0f);  // -0 + 0 = +0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

VEA_HD bool is_nan(float value) { return value != value; }

struct KeyRange {
    int64_t begin, end;  // begin <= end, within 0..Lk
};

// The keys that range and window leave to sample b.
VEA_HD KeyRange key_range(const ImageAttention& p, int64_t b) {
    int64_t begin = p.key_start ? load_index(p.key_start.data, p.key_start.dtype, b * p.key_start.stride[0]) : 0;
    int64_t end = p.key_stop ? load_index(p.key_stop.data, p.key_stop.dtype, b * p.key_stop.stride[0]) : p.keys;
    end = end > p.keys ? p.keys : end < 0 ? 0 : end;
    if (p.window > 0 && begin < end - p.window) begin = end - p.window;
    begin = begin < 0 ? 0 : begin;
    return {begin, end < begin ? begin : end};
}

// The query row of sample b.
VEA_HD int64_t query_row(const ImageAttention& p, int64_t b) {
    return p.query_index ? load_index(p.query_index.data, p.query_index.dtype, b * p.query_index.stride[0])
                         : p.queries - 1;
}

// Mask and position bias of one key, added together. `row` is the query row.
VEA_HD float bias_value(const ImageAttention& p, int64_t b, int64_t h, int64_t row, int64_t t) {
    const int64_t at[4] = {b, h, row, t};
    float bias = 0;
    if (p.position_bias) {
        int64_t i = 0;
        for (int d = 0; d < 4; ++d) i += at[d] * p.position_bias.stride[d];
        bias = load_float(p.position_bias.data, p.position_bias.dtype, i);
    }
    if (p.mask) {
        int64_t i = 0;
        for (int d = 0; d < 4; ++d) i += at[d] * p.mask.stride[d];
        const float mask = mask_value(p.mask.data, p.mask.dtype, i);
        bias = mask == minus_infinity() ? mask : bias + mask;  // a masked key stays masked whatever its bias
    }
    return bias;
}

}  // namespace
}  // namespace vea
