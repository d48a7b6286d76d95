// Maps and pictures on the CPU. All arrays lie in host memory and have been checked.
#pragma once

#include "pixels.h"

namespace vea::cpu {

// out[y, x] (+)= sum over r, c of left[r, y] * core[r, c] * right[c, x].
struct Expand {
    int64_t rows = 0, cols = 0, height = 0, width = 0;
    const float* left = nullptr;   // [rows, height]
    const float* core = nullptr;   // [rows, cols]
    const float* right = nullptr;  // [cols, width]
    float* out = nullptr;          // [height, width]
    bool accumulate = false;
};

// result[y, x, c] = round((alpha + (1 - alpha) * map[y, x]) * picture[y, x, c]).
struct Highlight {
    int64_t height = 0, width = 0, channels = 0;  // 1, 3, or 4 of which the last is copied
    const uint8_t* picture = nullptr;             // [height, width, channels]
    const float* map = nullptr;                   // [height, width]
    float alpha = 0;
    uint8_t* result = nullptr;  // [height, width, channels]
};

Range expand(const Expand& problem, int threads);                                // the range of out
Range highlight(const Highlight& problem, int threads);                          // the range of map

}  // namespace vea::cpu
