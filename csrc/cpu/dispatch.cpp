#include <cstdlib>
#include <cstring>

#include "inner.h"
#include "pixels.h"

namespace vea {

namespace {

CpuPath choose() {
    const char* wanted = std::getenv("VEA_CPU_PATH");
    const auto allowed = [&](const char* path) { return wanted == nullptr || std::strcmp(wanted, path) == 0; };
#ifdef VEA_X86
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    if (allowed("avx512_bf16") && avx512 && __builtin_cpu_supports("avx512bf16")) {
        return {"avx512_bf16", &kAvx512Bf16, &pixels::kAvx512};
    }
    if (allowed("avx512") && avx512) return {"avx512", &kAvx512, &pixels::kAvx512};
    if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        return {"avx2", &kAvx2, &pixels::kAvx2};
    }
#endif
    return {"portable", &kPortable, &pixels::kPortable};
}

}  // namespace

const CpuPath& cpu_path() {
    static const CpuPath chosen = choose();
    return chosen;
}

}  // namespace vea
