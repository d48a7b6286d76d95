#pragma once
#include "../emulation.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
