// The operations on an NVIDIA GPU. Launchers skip empty work, allocate nothing, wait for nothing, and return the CUDA
// error code (0: fine). All arrays lie in the memory of the current device.
#pragma once

#include <cstdint>

#include "../problem.h"

extern "C" {

// Bytes of workspace that the launch needs. Its first `vea_image_attention_tickets` 32-bit words must be zero before
// the first launch; the kernel leaves them zero.
int64_t vea_image_attention_workspace(const vea::ImageAttention* problem);
int64_t vea_image_attention_tickets(const vea::ImageAttention* problem);

int vea_image_attention(const vea::ImageAttention* problem, void* tickets, void* workspace, void* stream);
int vea_topk_mask(const vea::TopkMask* problem, void* stream);

const char* vea_cuda_error(int code);
int vea_cuda_devices(int* count);
int vea_cuda_driver(int* version);
}
