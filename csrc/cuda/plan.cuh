// How the work on one problem is cut, and what its phases leave to each other.
#pragma once

#include "../numerics.h"
#include "ops.h"

namespace vea::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kResident = 2;         // blocks that a multiprocessor holds at once
constexpr int kKeys = 16;            // keys that a warp scores together: the rows of a tensor-core product
constexpr int kHeads = 8;            // query heads that it scores them for: the columns
constexpr int kStep = kWarps * kKeys;
constexpr int kTokens = 64;          // image tokens that a block looks up together, two to a lane
constexpr int kShare = 4;            // query heads that a warp looks up together
constexpr int kPitch = kMaxDim / 4 + 4;  // uint4 per query in shared memory; neighbours lie 64 bytes apart in the banks

// How the work is cut, and sizes as the kernel wants them: at small problems every instruction before the keys are on
// their way, and between the phases, is latency.
struct Plan {
    int heads, kv_heads, group, keys, dim, tokens;  // Hq, Hkv, Hq / Hkv, Lk, D, M
    int key_stride, head_stride, query_stride;      // of K's rows, of the query's heads and dimensions
    int run;                                        // keys that a block scores: those of split blockIdx.x
    bool all_keys, plain;                           // no sample has a key range; scores are but scaled
    float share;                                    // 1 / Hq
    dim3 grid;                                      // (splits, key heads, samples); blocks step over what is more

    VEA_HD int figures() const { return (tokens + kTokens - 1) / kTokens * 2; }

    Plan(const ImageAttention& p, int64_t resident)
        : heads(int(p.heads)), kv_heads(int(p.kv_heads)), group(int(p.heads / p.kv_heads)), keys(int(p.keys)),
          dim(int(p.dim)), tokens(int(p.tokens)), key_stride(int(p.key.stride[2])), head_stride(int(p.query.stride[1])),
          query_stride(int(p.query.stride[3])), all_keys(!p.key_start && !p.key_stop && p.window == 0),
          plain(p.softcap <= 0 && !p.mask && !p.position_bias), share(1 / float(p.heads)) {
        const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
        const auto parts = [](int64_t n, int64_t of) { return (n + of - 1) / of; };
        const int64_t steps = parts(p.keys, kStep);
        int64_t best = INT64_MAX;
        for (int64_t rounds = 1; rounds <= 4; ++rounds) {
            const int64_t wanted = least(rounds * resident / (p.batch * p.kv_heads), resident);
            const int64_t length = wanted > 1 ? parts(steps, wanted) : steps;
            const int64_t x = parts(steps, length), y = least(p.kv_heads, resident / x);
            const int64_t z = least(p.batch, resident / (x * y));
            const int64_t time = parts(p.kv_heads, y) * parts(p.batch, z) * (length + 1);  // + 1: what a run costs
            if (time < best) best = time, run = int(length * kStep), grid = dim3(unsigned(x), unsigned(y), unsigned(z));
        }
    }
};

// The workspace, cut into arrays. As large as any plan needs: it is asked for before the device is.
struct Layout {
    float4* figures;  // [B, M / 32] sums of a and of a ln a, largest a: of 32 image tokens
    float2* runs;     // [B, Hq, splits] (maximum, sum of exponentials)
    float* scores;    // [B, Hq, Lk]
    float* values;    // [B, M] what the top-k chooses from
    float* masses;    // [B] mean over heads of all probabilities: 1 but for sinks
    int64_t floats;

    Layout(const ImageAttention& p, float* workspace) {
        const int64_t rows = p.batch * p.heads;
        figures = reinterpret_cast<float4*>(workspace);  // the widest first: they need their alignment
        runs = reinterpret_cast<float2*>(figures + p.batch * (p.tokens / kTokens + 1) * 2);
        scores = reinterpret_cast<float*>(runs + rows * (p.keys / kStep + 1));
        values = scores + rows * p.keys;
        masses = values + p.batch * p.tokens;
        floats = masses + p.batch - workspace;
    }
};

struct Range {
    int begin, end;

    __device__ Range(const ImageAttention& p, const Plan& plan, int b) : begin(0), end(plan.keys) {
        if (plan.all_keys) return;
        const KeyRange range = key_range(p, b);
        begin = int(range.begin), end = int(range.end);
    }
};

}  // namespace
}  // namespace vea::cuda
