#pragma once
#include "../emulation.h"

namespace cooperative_groups {

struct grid_group {
    void sync() const { emulation::wait(emulation::grid, int(gridDim.x * gridDim.y * gridDim.z * blockDim.x)); }
};
inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
