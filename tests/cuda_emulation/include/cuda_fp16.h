#pragma once
#include "../emulation.h"

struct __half {
    _Float16 value;
};
struct __half2 {
    _Float16 x, y;
};
inline float2 __half22float2(__half2 h) { return {float(h.x), float(h.y)}; }
