#include <algorithm>
#include <numeric>
#include <vector>

#include "../numerics.h"
#include "ops.h"
#include "threads.h"

namespace vea::cpu {

void choose_topk(const float* values, int64_t n, int64_t k, bool* chosen) {
    std::fill(chosen, chosen + n, false);
    // One integer per candidate orders by value, then by the lower index.
    std::vector<uint64_t> candidates;
    candidates.reserve(n);
    for (int64_t i = 0; i < n; ++i) {
        if (!is_nan(values[i])) candidates.push_back(uint64_t(sort_key(values[i])) << 32 | uint32_t(~i));
    }
    if (k < int64_t(candidates.size())) {
        std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), std::greater<>());
        candidates.resize(k);
    }
    for (const uint64_t candidate : candidates) chosen[uint32_t(~candidate)] = true;
}

void topk_mask(const TopkMask& p, int threads) {
    const bool small = p.batch * p.tokens < 65536;
    parallel_for(small ? 1 : threads, p.batch, [&](int64_t b) {
        std::vector<float> row(p.tokens);
        for (int64_t i = 0; i < p.tokens; ++i) {
            row[i] = load_float(p.scores.data, p.scores.dtype, b * p.scores.stride[0] + i * p.scores.stride[1]);
        }
        choose_topk(row.data(), p.tokens, p.k, p.chosen + b * p.tokens);
    });
}

}  // namespace vea::cpu
