#pragma once

#include <pybind11/pybind11.h>

namespace vea {

void bind_tap(pybind11::module_& m);

}  // namespace vea
