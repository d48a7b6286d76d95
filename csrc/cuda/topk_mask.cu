#include "ops.h"
#include "topk.cuh"

namespace vea::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) topk_mask_kernel(TopkMask p) {
    __shared__ TopkShared shared;
    const int64_t row = blockIdx.x * p.scores.stride[0];
    const auto value = [&](int64_t i) {
        return load_float(p.scores.data, p.scores.dtype, row + i * p.scores.stride[1]);
    };
    choose_topk(value, p.tokens, p.k, p.chosen + blockIdx.x * p.tokens, shared);
}

}  // namespace
}  // namespace vea::cuda

int vea_topk_mask(const vea::TopkMask* problem, void* stream) {
    if (problem->batch == 0 || problem->tokens == 0) return cudaSuccess;
    const auto grid = unsigned(problem->batch);
    vea::cuda::topk_mask_kernel<<<grid, vea::cuda::kThreads, 0, cudaStream_t(stream)>>>(*problem);
    return cudaGetLastError();
}

const char* vea_cuda_error(int code) { return cudaGetErrorString(cudaError_t(code)); }

int vea_cuda_devices(int* count) {
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error != cudaSuccess) cudaGetLastError();  // do not leave it for the next caller to find
    return error;
}
