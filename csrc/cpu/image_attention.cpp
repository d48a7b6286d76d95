// For each group of query heads that share their keys, two passes. The first reads each key once, for all heads of the group,
// and leaves exp(score - maximum of the block) with the maximum and the sum of every block of keys. These are joined into
// each head's denominator, and the second pass looks up the image tokens. Then the groups are added. Blocks are cut by size
// alone, never by the number of threads, so that the result has the same bits on one thread and on many.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../numerics.h"
#include "inner.h"
#include "ops.h"
#include "runs.h"
#include "threads.h"

namespace vea::cpu {
namespace {

constexpr int64_t kThreadsFrom = 1 << 18;  // multiply-adds from which waking a second thread pays

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct BlockSum {
    float largest;     // of the block's scores
    float total;       // of exp(score - largest)
    float factor = 0;  // once all blocks are joined: probability = exp(score - largest) * factor
};

struct Figures {  // of the mean row over some of the image tokens
    double mass = 0, weighted_log = 0;
    float peak = 0;
};

struct alignas(64) Line {  // of the cache: a vector that crosses two costs two loads
    float lanes[16];
};

// Memory that a thread keeps from call to call: fresh pages cost more than the kernel itself.
using Memory = std::vector<Line>;

float* scratch(Memory& memory, int64_t floats) {
    const size_t lines = size_t(floats + 15) / 16;
    if (memory.size() < lines) {
        memory.clear();
        memory.resize(lines);
    }
    return memory.empty() ? nullptr : memory[0].lanes;
}

class Kernel {
public:
    Kernel(const ImageAttention& problem, ImageRuns& runs, int threads) : p(problem), runs_(runs), threads_(threads) {
        group_ = p.heads / p.kv_heads;
        padded_ = round_up(p.dim, kLanes);
        chunks_ = (p.tokens + kBlock - 1) / kBlock;
        for (int64_t b = 0; b < p.batch; ++b) {
            ranges_.push_back(key_range(p, b));
            blocks_ = std::max(blocks_, (ranges_[b].end - ranges_[b].begin + kBlock - 1) / kBlock);
        }
        const int64_t rows = p.batch * p.heads;
        if (rows * blocks_ * kBlock * p.dim < kThreadsFrom) threads_ = 1;
        // With enough groups for all threads each takes whole ones, whose exponentials then stay in its cache.
        groups_ = p.batch * p.kv_heads;
        by_group_ = groups_ % threads_ == 0 || groups_ >= 4 * threads_;
        thread_local Memory memory;
        queries_ = scratch(memory, rows * padded_ + groups_ * (chunks_ + (by_group_ ? 0 : blocks_ * group_)) * kBlock);
        sums_of_group_ = queries_ + rows * padded_;
        exponentials_ = sums_of_group_ + groups_ * chunks_ * kBlock;
        sums_.resize(rows * blocks_);
        masses_.resize(rows);
        if (p.stats) figures_.resize(p.batch * chunks_);
        if (!runs_.complete) runs_.resize(p.batch, chunks_, blocks_);
    }

    void run() {
        const int readers = p.batch * p.heads * p.tokens < kThreadsFrom ? 1 : threads_;
        parallel_for(readers, p.batch, [this](int64_t b) {
            widen_queries(b);
            if (!runs_.complete) runs_.find(p, b, ranges_[b].begin, ranges_[b].end);
        });
        runs_.complete = true;
        if (by_group_) {
            parallel_for(threads_, groups_, [this](int64_t g) {
                thread_local Memory memory;
                float* to = scratch(memory, blocks_ * group_ * kBlock);
                for (int64_t i = 0; i < blocks_; ++i) score_block(g, i, to);
                join_blocks(g);
                for (int64_t i = 0; i < chunks_; ++i) look_up(g, i, to);
            });
        } else {
            const auto of_group = [this](int64_t g) { return exponentials_ + g * blocks_ * group_ * kBlock; };
            parallel_for(threads_, groups_ * blocks_,
                         [&](int64_t i) { score_block(i / blocks_, i % blocks_, of_group(i / blocks_)); });
            parallel_for(threads_, groups_, [this](int64_t g) { join_blocks(g); });
            parallel_for(readers, groups_ * chunks_,
                         [&](int64_t i) { look_up(i / chunks_, i % chunks_, of_group(i / chunks_)); });
        }
        parallel_for(readers, p.batch * chunks_, [this](int64_t i) { add_groups(i / chunks_, i % chunks_); });
        for (int64_t b = 0; p.stats && b < p.batch; ++b) summarise(b);
        if (p.chosen) parallel_for(threads_, p.batch, [this](int64_t b) { choose(b); });
    }

private:
    void widen_queries(int64_t b) {
        const int64_t* stride = p.query.stride;
        const int64_t row = query_row(p, b);
        for (int64_t h = 0; h < p.heads; ++h) {
            float* to = queries_ + (b * p.heads + h) * padded_;
            const int64_t from = b * stride[0] + h * stride[1] + row * stride[2];
            if (stride[3] == 1) {
                const auto* first = static_cast<const char*>(p.query.data) + from * bytes_of_float(p.query.dtype);
                loops_.widen(first, p.query.dtype, p.dim, to);
            } else {
                for (int64_t d = 0; d < padded_; ++d) {
                    to[d] = d < p.dim ? load_float(p.query.data, p.query.dtype, from + d * stride[3]) : 0.0f;
                }
            }
        }
    }

    BlockSum* sums(int64_t b, int64_t h) { return sums_.data() + (b * p.heads + h) * blocks_; }

    // `exponentials`: [blocks_, group_, kBlock] of group g. Those of a block lie together: they are written and read by block.
    void score_block(int64_t g, int64_t block, float* exponentials) {
        const int64_t b = g / p.kv_heads, group = g % p.kv_heads;
        const int64_t begin = ranges_[b].begin + block * kBlock;
        const int64_t n = std::min(kBlock, ranges_[b].end - begin);
        const int64_t first = group * group_;
        if (n <= 0) {
            for (int64_t h = first; h < first + group_; ++h) sums(b, h)[block] = {minus_infinity(), 0};
            return;
        }
        thread_local Memory memory;
        float* rows = scratch(memory, group_ * kRow);  // near, as the scores come in columns of a few keys
        const int64_t* stride = p.key.stride;
        const int64_t offset = b * stride[0] + group * stride[1] + begin * stride[2];
        const auto* keys = static_cast<const char*>(p.key.data) + offset * bytes_of_float(p.key.dtype);
        loops_.dots(queries_ + (b * p.heads + first) * padded_, group_, keys, p.key.dtype, stride[2], p.dim, p.scale, n,
                    rows);

        const bool biased = p.mask || p.position_bias;
        const bool shared = p.mask.stride[1] == 0 && p.position_bias.stride[1] == 0;
        alignas(64) float bias[kBlock] = {};
        for (int64_t i = 0; i < group_; ++i) {
            if (biased && (i == 0 || !shared)) {
                for (int64_t t = 0; t < n; ++t) bias[t] = bias_value(p, b, first + i, query_row(p, b), begin + t);
            }
            float* row = rows + i * kRow;
            const float largest = loops_.shape(row, n, p.softcap, biased ? bias : nullptr);
            const float shift = largest == minus_infinity() ? 0 : largest;
            // Those that nobody looks up stay in the first-level cache: writing them takes time from reading keys.
            float* to = runs_.in(b, block) ? exponentials + (block * group_ + i) * kBlock : row;
            sums(b, first + i)[block] = {largest, loops_.exponentials(row, n, shift, to)};
        }
    }

    void join_blocks(int64_t g) {
        for (int64_t i = g * group_; i < (g + 1) * group_; ++i) {  // a head of a sample
            BlockSum* blocks = sums_.data() + i * blocks_;
            const float sink =
                p.sinks ? load_float(p.sinks.data, p.sinks.dtype, i % p.heads * p.sinks.stride[0]) : minus_infinity();
            float largest = sink;
            for (int64_t k = 0; k < blocks_; ++k) largest = std::max(blocks[k].largest, largest);
            double visible = 0;
            for (int64_t k = 0; k < blocks_; ++k) {
                blocks[k].factor = std::exp(blocks[k].largest - largest);
                visible += double(blocks[k].total) * blocks[k].factor;
            }
            const double total = visible + (p.sinks ? std::exp(sink - largest) : 0);
            for (int64_t k = 0; k < blocks_; ++k) blocks[k].factor = float(blocks[k].factor / total);
            masses_[i] = float(visible / total);
        }
    }

    // Of the rows of a chunk: its image tokens and zeros behind them, in whole vectors.
    int64_t width(int64_t chunk) const { return std::min(kBlock, round_up(p.tokens - chunk * kBlock, kLanes)); }

    // The sum over the group's heads (and each head) at the image tokens of one chunk.
    void look_up(int64_t g, int64_t chunk, const float* exponentials) {
        const int64_t b = g / p.kv_heads, first = g % p.kv_heads * group_;
        const std::vector<Run>& runs = runs_.of(b, chunk);
        const int64_t n = width(chunk);
        alignas(64) float probability[kBlock];
        float* total = sums_of_group_ + (g * chunks_ + chunk) * kBlock;
        std::fill_n(total, n, 0.0f);
        std::fill_n(probability, n, 0.0f);
        float* to = p.per_head ? probability : total;
        float unseen = 0;  // of a token that no head may see: NaN in a spoilt row
        for (int64_t h = first; h < first + group_; ++h) {
            const float* row = exponentials + (h - first) * kBlock;
            const BlockSum* blocks = sums(b, h);
            unseen = (p.per_head ? 0 : unseen) + 0 * masses_[b * p.heads + h];
            const bool shows = p.per_head || h + 1 == first + group_;
            for (const Run& run : runs) {
                if (run.block < 0) {
                    if (shows && run.block == Run::kUnseen) std::fill_n(to + run.token, run.length, unseen);
                    continue;
                }
                const float* found = row + run.block * group_ * kBlock + run.key;
                if (run.length < 16) {
                    for (int64_t j = 0; j < run.length; ++j) to[run.token + j] += found[j] * blocks[run.block].factor;
                } else {
                    loops_.add_scaled(found, run.length, blocks[run.block].factor, to + run.token);
                }
            }
            if (p.per_head) {
                write(b, h, chunk, probability, p.weight);
                for (int64_t j = 0; j < n; ++j) total[j] += probability[j];
                std::fill_n(probability, n, 0.0f);
            }
        }
    }

    // The mean over all heads at the image tokens of one chunk, and its figures.
    void add_groups(int64_t b, int64_t chunk) {
        const int64_t n = width(chunk);
        float* total = sums_of_group_ + (b * p.kv_heads * chunks_ + chunk) * kBlock;
        for (int64_t group = 1; group < p.kv_heads; ++group) {
            loops_.add_scaled(total + group * chunks_ * kBlock, n, 1, total);
        }
        if (!p.per_head) write(b, 0, chunk, total, p.weight / float(p.heads));
        if (!p.stats) return;
        for (int64_t j = 0; j < n; ++j) total[j] /= float(p.heads);
        const RowFigures found = loops_.figures(total, n);
        figures_[b * chunks_ + chunk] = {found.mass, found.weighted_log, found.peak};
    }

    void summarise(int64_t b) {
        Figures all;
        for (int64_t i = 0; i < chunks_; ++i) {
            const Figures& part = figures_[b * chunks_ + i];
            all.mass += part.mass;
            all.weighted_log += part.weighted_log;
            all.peak = std::max(all.peak, part.peak);
        }
        double total = 0;
        for (int64_t h = 0; h < p.heads; ++h) total += masses_[b * p.heads + h] / double(p.heads);
        const double text = total - all.mass;
        float* stats = p.stats + b * 4;
        stats[0] = float(all.mass);
        stats[1] = float(text < 0 ? 0 : text);  // rounding; NaN stays
        stats[2] = float(all.peak / all.mass);
        stats[3] = float(std::log(all.mass) - all.weighted_log / all.mass);
    }

    void write(int64_t b, int64_t h, int64_t chunk, const float* probability, float factor) const {
        const int64_t begin = chunk * kBlock, n = std::min(kBlock, p.tokens - begin);
        float* row = p.out + b * p.out_stride[0] + h * p.out_stride[1] + begin;
        for (int64_t j = 0; j < n; ++j) row[j] = probability[j] * factor + (p.accumulate ? row[j] : 0.0f);
    }

    void choose(int64_t b) const {
        std::vector<float> row(p.tokens);
        const int64_t rows = p.per_head ? p.heads : 1;
        for (int64_t j = 0; j < p.tokens; ++j) {
            for (int64_t h = 0; h < rows; ++h) row[j] += p.out[b * p.out_stride[0] + h * p.out_stride[1] + j];
        }
        for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
            for (const Run& run : runs_.of(b, chunk)) {
                if (run.block == Run::kNone) std::fill_n(row.data() + chunk * kBlock + run.token, run.length, quiet_nan());
            }
        }
        choose_topk(row.data(), p.tokens, p.top_k, p.chosen + b * p.tokens);
    }

    const ImageAttention& p;
    ImageRuns& runs_;
    const InnerLoops& loops_ = *cpu_path().loops;
    int threads_;
    int64_t group_;       // query heads per key head
    int64_t groups_;      // B * Hkv
    bool by_group_;       // each group on one thread
    int64_t padded_;      // floats per query row
    int64_t blocks_ = 0;  // of keys per sample (the longest one's)
    int64_t chunks_;      // of kBlock image tokens per sample
    std::vector<KeyRange> ranges_;
    std::vector<BlockSum> sums_;   // [B, Hq, blocks_]
    std::vector<float> masses_;    // [B, Hq] sum of all probabilities: 1 but for sinks; NaN spoils the row
    std::vector<Figures> figures_;  // [B, chunks_]
    float* queries_;        // [B, Hq, padded_]
    float* sums_of_group_;  // [B, Hkv, chunks_, kBlock] of probabilities
    float* exponentials_;   // [B, Hkv, blocks_, group_, kBlock], unless by_group_
};

}  // namespace

void image_attention(const ImageAttention& problem, int threads) {
    ImageRuns runs;
    image_attention(problem, runs, threads);
}

void image_attention(const ImageAttention& problem, ImageRuns& runs, int threads) {
    if (problem.batch > 0 && (problem.tokens > 0 || problem.stats)) Kernel(problem, runs, threads).run();
}

}  // namespace vea::cpu
