// The operations on an NVIDIA GPU. Launchers skip empty work, allocate nothing, wait for nothing, and return the CUDA
// error code (0: fine). All arrays lie in the memory of the current device.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace vea::cuda {

constexpr int64_t kMaxDim = 256;     // D
constexpr int64_t kMaxHeads = 1024;  // Hq
constexpr int64_t kMaxCount = int64_t(1) << 30;  // B * Hq, Hq * Lk, M and strides: the kernel counts in 32 bits

// Floats of scratch memory that a launch needs, 16-byte aligned, in any state.
int64_t image_attention_workspace(const ImageAttention& problem);

}  // namespace vea::cuda

extern "C" {

int vea_image_attention(const vea::ImageAttention* problem, float* workspace, void* stream);
int vea_topk_mask(const vea::TopkMask* problem, void* stream);

const char* vea_cuda_error(int code);
int vea_cuda_devices(int* count);
}
