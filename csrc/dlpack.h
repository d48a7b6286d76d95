// What is used of DLPack's C interface (https://github.com/dmlc/dlpack, version 1.3): one call that tells all of a tensor.
#pragma once

#include <cstdint>

namespace vea::dlpack {

constexpr int32_t kHost = 1;
constexpr int kInt = 0, kFloat = 2, kBfloat = 4, kBool = 6;
constexpr const char* kCapsule = "dlpack_exchange_api";  // the attribute __dlpack_c_exchange_api__ of a tensor's type

struct Device {
    int32_t type, id;
};

struct Tensor {
    void* data;
    Device device;
    int32_t rank;
    struct {
        uint8_t kind, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *stride;  // stride counts elements
    uint64_t byte_offset;
};

using Read = int (*)(void* object, Tensor* out);  // borrows; not 0: a Python error is set

struct Exchange {
    uint32_t major, minor;  // all behind these two and `earlier` is laid out as here in major version 1
    Exchange* earlier;
    void *allocate, *export_tensor, *import_tensor;
    Read read;  // may be missing
    void* stream;
};

inline Read reader(void* capsule) {
    const auto* exchange = static_cast<const Exchange*>(capsule);
    while (exchange && exchange->major != 1) exchange = exchange->earlier;
    return exchange ? exchange->read : nullptr;
}

}  // namespace vea::dlpack
