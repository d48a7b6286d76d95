// One cooperative launch, whose blocks all run at once and meet at a barrier of the whole grid.
//
// 1. Each block scores a run of keys for the query heads of one key head (flash-decoding's split over keys), 16 keys to
//    a warp at a time, and leaves the scores and, per head, their maximum and sum of exponentials in the workspace.
// 2. After the barrier each block looks up some of the image tokens of one sample, with the denominators of all runs.
// 3. Statistics and top-k need the whole row: they follow after another barrier.
//
// Why scores go to memory (Hq * Lk floats, next to Hkv * Lk * D elements of K): a probability needs the denominator of
// all runs, and reading a score back from the second-level cache costs less than computing it twice. Why the grid
// waits, where the last block of a sample could go on alone: one block would look up tens of thousands of scores, one
// round trip to the cache after the other (38 us for 1,300 keys on an H100, where the whole takes 7 now).
#include <cooperative_groups.h>

#include "look_up.cuh"
#include "score.cuh"
#include "topk.cuh"

namespace vea::cuda {
namespace {

union Shared {
    Scoring scoring;
    LookUp look_up;
    TopkShared topk;
};

// Image mass, text mass, peak and entropy of one sample, by one warp.
__device__ void write_stats(const ImageAttention& p, const Plan& plan, const Layout& w, int b) {
    float mass = 0, weighted_log = 0, peak = 0;
    for (int i = threadIdx.x; i < plan.figures(); i += 32) {
        const float4 part = __ldcg(w.figures + int64_t(b) * plan.figures() + i);
        mass += part.x, weighted_log += part.y, peak = fmaxf(peak, part.z);
    }
    mass = warp_sum(mass), weighted_log = warp_sum(weighted_log), peak = warp_max(peak);
    if (threadIdx.x != 0) return;
    const float text = __ldcg(w.masses + b) - mass;
    float* stats = p.stats + b * 4;
    stats[0] = mass;
    stats[1] = text < 0 ? 0 : text;  // rounding; NaN stays
    stats[2] = peak / mass;
    stats[3] = logf(mass) - weighted_log / mass;
}

__device__ __noinline__ void finish(const ImageAttention& p, const Plan& plan, const Layout& w, int b,
                                    TopkShared& shared) {
    if (p.stats && threadIdx.x < 32) write_stats(p, plan, w, b);
    if (!p.chosen) return;
    const auto value = [&](int64_t i) { return w.values[b * p.tokens + i]; };
    choose_topk(value, p.tokens, p.top_k, p.chosen + b * p.tokens, shared);
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, kResident)
    image_attention_kernel(const __grid_constant__ ImageAttention p, const __grid_constant__ Plan plan,
                           const __grid_constant__ Layout w) {
    __shared__ Shared shared;
    const cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    const int batch = int(p.batch), first = int(blockIdx.x + gridDim.x * blockIdx.y) * kTokens;
    for (int b = blockIdx.z; b < batch; b += gridDim.z) {
        for (int g = blockIdx.y; g < plan.kv_heads; g += gridDim.y) {
            score_run<T, ALIGNED>(p, plan, w, b, g, shared.scoring);
        }
    }
    Sample sample(p, plan, w, blockIdx.z, first);  // on its way before the others arrive
    grid.sync();
    for (int b = blockIdx.z; b < batch; b += gridDim.z) {
        look_up(p, plan, w, sample, b, first, int(gridDim.x * gridDim.y) * kTokens, shared.look_up);
        sample = Sample(p, plan, w, b + gridDim.z, first);
    }
    if (!p.stats && !p.chosen) return;
    grid.sync();
    if (blockIdx.x != 0 || blockIdx.y != 0) return;
    for (int b = blockIdx.z; b < batch; b += gridDim.z) finish(p, plan, w, b, shared.topk);
}

template <class T, bool ALIGNED>
int launch(const ImageAttention& p, float* workspace, cudaStream_t stream) {
    int device = 0, count = 0;
    if (const int error = cudaGetDevice(&device)) return error;
    if (const int error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device)) return error;
    const Plan plan(p, int64_t(count) * kResident);
    cudaLaunchAttribute together{};
    together.id = cudaLaunchAttributeCooperative;  // all blocks at once, or an error
    together.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = plan.grid, config.blockDim = dim3(kThreads), config.stream = stream;
    config.attrs = &together, config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, image_attention_kernel<T, ALIGNED>, p, plan, Layout(p, workspace));
}

// Every instance costs build time on every architecture: the sizes are numbers at run time. One kernel per dtype serves
// keys that 16-byte loads cannot read.
template <class T>
int choose(const ImageAttention& p, float* workspace, cudaStream_t stream) {
    const auto whole = [](int64_t n) { return n % Element<T>::per_chunk == 0; };
    const bool aligned = reinterpret_cast<uintptr_t>(p.key.data) % 16 == 0 && whole(p.dim) && whole(p.key.stride[0]) &&
                         whole(p.key.stride[1]) && whole(p.key.stride[2]);
    return aligned ? launch<T, true>(p, workspace, stream) : launch<T, false>(p, workspace, stream);
}

}  // namespace

int64_t image_attention_workspace(const ImageAttention& p) { return Layout(p, nullptr).floats; }

}  // namespace vea::cuda

int vea_image_attention(const vea::ImageAttention* problem, float* workspace, void* stream) {
    using vea::Dtype;
    if (problem->batch == 0 || (problem->tokens == 0 && !problem->stats)) return cudaSuccess;
    switch (problem->key.dtype) {
        case Dtype::f32: return vea::cuda::choose<float>(*problem, workspace, cudaStream_t(stream));
        case Dtype::f16: return vea::cuda::choose<__half>(*problem, workspace, cudaStream_t(stream));
        case Dtype::bf16: return vea::cuda::choose<__nv_bfloat16>(*problem, workspace, cudaStream_t(stream));
        default: return cudaErrorInvalidValue;
    }
}
