// The operations on the CPU. All arrays lie in host memory and have been checked; errors are impossible from here on,
// but for memory (std::bad_alloc).
#pragma once

#include "../problem.h"
#include "runs.h"

namespace vea::cpu {

void image_attention(const ImageAttention& problem, int threads);

// The same where the image tokens stay from call to call, and all their keys are there in a range from 0: the first call
// finds the runs.
void image_attention(const ImageAttention& problem, ImageRuns& runs, int threads);
void topk_mask(const TopkMask& problem, int threads);

// Marks the k largest of values[0..n) in chosen: ties to the lower index, NaN never.
void choose_topk(const float* values, int64_t n, int64_t k, bool* chosen);

}  // namespace vea::cpu
