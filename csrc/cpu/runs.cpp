#include "runs.h"

#include <algorithm>

#include "../numerics.h"
#include "inner.h"

namespace vea::cpu {

void ImageRuns::resize(int64_t batch, int64_t chunks, int64_t blocks) {
    chunks_ = chunks, blocks_ = blocks;
    runs_.assign(batch * chunks, {});
    shown_.assign(batch * blocks, false);
}

void ImageRuns::find(const ImageAttention& p, int64_t b, int64_t begin, int64_t end) {
    const Array& index = p.image_index;
    const auto kind = [=](int64_t t) { return t < 0 ? Run::kNone : t < begin || t >= end ? Run::kUnseen : 0; };
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        std::vector<Run>& runs = runs_[b * chunks_ + chunk];
        const int64_t first = chunk * kBlock, n = std::min(kBlock, p.tokens - first);
        const auto token = [&](int64_t j) {
            return load_index(index.data, index.dtype, b * index.stride[0] + (first + j) * index.stride[1]);
        };
        for (int64_t j = 0; j < n;) {
            const int64_t from = j, t = token(j++);
            if (kind(t) == 0) {
                const int64_t block = (t - begin) / kBlock, key = (t - begin) % kBlock;
                const int64_t stop = std::min(end, t - key + kBlock);
                for (int64_t next = t + 1; j < n && next < stop && token(j) == next; ++next) ++j;
                runs.push_back({from, j - from, block, key});
                shown_[b * blocks_ + block] = true;
            } else {
                while (j < n && kind(token(j)) == kind(t)) ++j;
                runs.push_back({from, j - from, kind(t), 0});
            }
        }
    }
}

}  // namespace vea::cpu
