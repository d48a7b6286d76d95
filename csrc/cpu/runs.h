// Where the keys of the image tokens lie: as runs, for mostly they follow each other, and copying beats looking up.
#pragma once

#include <vector>

#include "../problem.h"

namespace vea::cpu {

struct Run {  // of image tokens whose keys follow each other within a block
    static constexpr int64_t kUnseen = -1, kNone = -2;  // keys that the query may not see; no keys

    int64_t token, length;  // the first one's place in its chunk
    int64_t block, key;     // of kBlock keys, or kUnseen, kNone; the first one's place in it
};

class ImageRuns {
public:
    bool complete = false;  // find() has been called for every sample

    void resize(int64_t batch, int64_t chunks, int64_t blocks);  // and forget all

    // Those of sample b, which may see the keys from begin to end; there its blocks begin.
    void find(const ImageAttention& p, int64_t b, int64_t begin, int64_t end);

    // By chunks of kBlock image tokens.
    const std::vector<Run>& of(int64_t b, int64_t chunk) const { return runs_[b * chunks_ + chunk]; }

    // Whether the block of keys holds one.
    bool in(int64_t b, int64_t block) const { return block < blocks_ && shown_[b * blocks_ + block]; }

private:
    int64_t chunks_ = 0, blocks_ = 0;
    std::vector<std::vector<Run>> runs_;  // [B, chunks_]
    std::vector<char> shown_;             // [B, blocks_]
};

}  // namespace vea::cpu
