#include "evidence.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "threads.h"

namespace vea::cpu {
namespace {

constexpr int64_t kBand = 63;  // rows per task: what a task reads and writes stays in its core's cache

Range in_bands(int64_t height, int threads, const std::function<Range(int64_t, int64_t)>& task) {
    std::vector<Range> ranges((height + kBand - 1) / kBand);
    parallel_for(threads, int64_t(ranges.size()), [&](int64_t i) {
        ranges[i] = task(i * kBand, std::min(height, (i + 1) * kBand));
    });
    Range all;
    for (const Range& r : ranges) all.join(r);
    return all;
}

}  // namespace

Range expand(const Expand& p, int threads) {
    const PixelLoops& loops = *cpu_path().pixels;
    return in_bands(p.height, threads, [&](int64_t first, int64_t end) {
        const int64_t rows = end - first;
        std::vector<float> factors(rows * p.rows), terms(rows * p.cols), tile(std::max(p.rows, p.cols) * kTile);
        for (int64_t r = 0; r < p.rows; ++r) {
            for (int64_t y = 0; y < rows; ++y) factors[y * p.rows + r] = p.left[r * p.height + first + y];
        }
        // Both products are sums of rows: first left * core over the grid's columns, then that * right over the pixels.
        const auto product = [&](const float* by, int64_t count, const float* matrix, int64_t width, float* out,
                                 bool accumulate) {
            Range range;
            for (int64_t x = 0; x < width; x += kTile) {
                const int64_t n = std::min(kTile, width - x);
                for (int64_t k = 0; k < count; ++k) std::copy_n(matrix + k * width + x, n, tile.data() + k * kTile);
                range.join(loops.expand(by, rows, count, tile.data(), out + x, width, n, accumulate));
            }
            return range;
        };
        product(factors.data(), p.rows, p.core, p.cols, terms.data(), false);
        return product(terms.data(), p.cols, p.right, p.width, p.out + first * p.width, p.accumulate);
    });
}

Range highlight(const Highlight& p, int threads) {
    const PixelLoops& loops = *cpu_path().pixels;
    return in_bands(p.height, threads, [&](int64_t first, int64_t end) {
        std::vector<float> gains(p.width * p.channels + 1);
        Range range;
        for (int64_t y = first; y < end; ++y) {
            range.join(loops.gains(p.map + y * p.width, p.width, p.alpha, p.channels, gains.data()));
            if (range.nan || range.low < 0 || range.high > 1.5f) return range;  // the caller refuses it
            const int64_t at = y * p.width * p.channels;
            loops.multiply(p.picture + at, gains.data(), p.width * p.channels, p.result + at);
        }
        return range;
    });
}

}  // namespace vea::cpu
