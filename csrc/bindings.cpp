// The operators as Python calls them: their arguments, held to each other and to what the kernels take.
#include <pybind11/pybind11.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cpu/threads.h"
#include "bindings_evidence.h"
#include "cpu/inner.h"
#include "cpu/ops.h"
#include "numerics.h"
#include "problem.h"
#include "tap.h"
#include "tensors.h"
#ifdef VEA_CUDA_ARCHS
#include "cuda/ops.h"
#endif

namespace py = pybind11;

namespace {

using vea::Dtype;
using vea::InvalidInput;
using vea::is_float;
using vea::is_index;
using vea::number;
using vea::Reader;
using vea::refuse;
using vea::Tensor;

constexpr int64_t kMostScores = int64_t(1) << 40;  // B * Hq * Lk
constexpr int64_t kMostTokens = (int64_t(1) << 31) - 1;  // top-k counts in 32 bits

struct DeviceError {
    std::string message;
};

#ifdef VEA_CUDA_ARCHS
constexpr int64_t kMaxDimCuda = vea::cuda::kMaxDim, kMaxHeadsCuda = vea::cuda::kMaxHeads;
constexpr int64_t kMaxCountCuda = vea::cuda::kMaxCount;

void check_launch(int code) {
    if (code != 0) throw DeviceError{std::string("the CUDA kernel was not launched: ") + vea_cuda_error(code)};
}

// Scratch memory comes from torch's allocator, each time: a CUDA graph may capture it, and no other stream is given the
// same. `floats_there` is a float32 tensor on the device.
void launch(const vea::ImageAttention& p, py::handle floats_there, uintptr_t stream) {
    const py::int_ floats(vea::cuda::image_attention_workspace(p));
    const py::object scratch = vea::call(floats_there, vea::names().new_empty, floats);
    const py::object pointer = vea::call(scratch, vea::names().data_ptr);
    auto* const workspace = static_cast<float*>(PyLong_AsVoidPtr(pointer.ptr()));
    py::gil_scoped_release release;
    check_launch(vea_image_attention(&p, workspace, reinterpret_cast<void*>(stream)));
}
#else
constexpr int64_t kMaxDimCuda = 0, kMaxHeadsCuda = 0, kMaxCountCuda = 0;
#endif

// Two rows of `out` in the same place would be added to twice. Nested layouts only, which is all that slicing makes.
void check_rows_apart(const Tensor& out) {
    struct Axis {
        int64_t stride, size;
    };
    Axis inner{out.array.stride[0], out.size[0]}, outer{0, 1};
    if (out.rank == 3) {
        outer = {out.array.stride[1], out.size[1]};
        if (outer.size == 1 || (inner.size > 1 && outer.stride < inner.stride)) std::swap(inner, outer);
    }
    int64_t extent = out.size[out.rank - 1];
    if (out.size[0] == 0 || out.size[1] == 0 || extent == 0) return;
    for (const Axis& axis : {inner, outer}) {
        if (axis.size == 1) continue;
        if (axis.stride < extent) {
            refuse("out has shape ", out.shape(), " and overlapping rows; give each its own memory");
        }
        extent += axis.stride * (axis.size - 1);
    }
}

// Index values can only be looked at in host memory; on a GPU the kernel answers bad ones with NaN. Returns the largest.
int64_t check_values(const Tensor& index, int64_t low, int64_t end) {
    int64_t largest = low;
    if (!index.given()) return largest;
    for (int64_t i = 0; i < index.size[0]; ++i) {
        for (int64_t j = 0; j < index.size[1]; ++j) {
            const int64_t value = vea::load_index(index.array.data, index.array.dtype,
                                                  i * index.array.stride[0] + j * index.array.stride[1]);
            if (value < low || value >= end) {
                refuse(index.name, " holds ", value, "; allowed: ", low, " to ", end - 1);
            }
            largest = std::max(largest, value);
        }
    }
    return largest;
}

int64_t checked_tokens(const Tensor& t, int64_t most = kMostTokens) {
    if (t.size[1] > most) refuse(t.name, " has shape ", t.shape(), "; at most ", most, " tokens");
    return t.size[1];
}

int64_t checked_k(const char* name, py::handle value, int64_t tokens) {
    const auto k = number<int64_t>(value, name, "an integer");
    if (k < 0 || k > tokens) refuse(name, " = ", k, ", but there are ", tokens, " tokens; choose 0 to ", tokens);
    return k;
}

bool* output_mask(Reader& reader, py::handle object, int64_t batch, int64_t tokens) {
    const Tensor chosen = reader.optional(object, "chosen", 2);
    if (!chosen.given()) return nullptr;
    chosen.require_dtype([](Dtype d) { return d == Dtype::boolean; }, "bool");
    chosen.require_size(0, batch);
    chosen.require_size(1, tokens);
    return static_cast<bool*>(const_cast<void*>(chosen.array.data));  // fresh from torch.empty: contiguous
}

float* output_stats(Reader& reader, py::handle object, int64_t batch) {
    const Tensor stats = reader.optional(object, "stats", 2);
    if (!stats.given()) return nullptr;
    stats.require_dtype([](Dtype d) { return d == Dtype::f32; }, "torch.float32");
    stats.require_size(0, batch);
    stats.require_size(1, 4);
    if (stats.array.stride[1] != 1 || (batch > 1 && stats.array.stride[0] != 4)) {
        refuse("stats has strides ", stats.array.stride[0], " and ", stats.array.stride[1], "; it must be contiguous");
    }
    return static_cast<float*>(const_cast<void*>(stats.array.data));
}

// vea_sdk.ops.arguments.Arguments, a named tuple: its fields in order.
struct Call {
    py::handle query, key, image_index, query_index, scale, key_start, key_stop, mask, softcap, window, sinks,
        position_bias, weight, top_k, per_head;

    explicit Call(const py::tuple& arguments) {
        py::handle* const fields[] = {&query,    &key,   &image_index, &query_index,   &scale,  &key_start, &key_stop, &mask,
                                      &softcap, &window, &sinks,       &position_bias, &weight, &top_k,     &per_head};
        if (arguments.size() != std::size(fields)) refuse("expected ", std::size(fields), " arguments");
        for (size_t i = 0; i < std::size(fields); ++i) *fields[i] = PyTuple_GET_ITEM(arguments.ptr(), i);  // borrowed
    }
};

const auto kFloats = "torch.float32, torch.float16, torch.bfloat16";
const auto kIndices = "torch.int32, torch.int64";

// What the CUDA kernel counts in 32 bits, which no model comes near.
void check_counts(const Tensor& query, const Tensor& key, const vea::ImageAttention& p) {
    if (p.batch > kMaxCountCuda / p.heads) {
        refuse("query has shape ", query.shape(), "; the GPU's kernel takes ", kMaxCountCuda / p.heads,
               " samples of so many heads; split the batch");
    }
    if (p.keys > kMaxCountCuda / p.heads) {
        refuse("key has shape ", key.shape(), "; the GPU's kernel takes ", kMaxCountCuda / p.heads, " keys for the ",
               p.heads, " heads of query; move them to the CPU");
    }
    const std::pair<const Tensor&, int> strides[] = {{query, 1}, {query, 3}, {key, 2}};
    for (const auto& [t, i] : strides) {
        if (t.size[i] == 1 || t.array.stride[i] <= kMaxCountCuda) continue;
        refuse(t.name, " has stride ", t.array.stride[i], " in dimension ", i, "; the GPU's kernel takes ",
               kMaxCountCuda, "; pass ", t.name, ".contiguous()");
    }
}

void read_query_and_key(Reader& reader, py::handle query_tensor, py::handle key_tensor, vea::ImageAttention& p) {
    const Tensor query = reader.read(query_tensor, "query", 4);
    query.require_dtype(is_float, kFloats);
    p.batch = query.size[0], p.heads = query.size[1], p.queries = query.size[2], p.dim = query.size[3];
    p.query = query.array;

    const Tensor key = reader.read(key_tensor, "key", 4);
    if (key.array.dtype != query.array.dtype) {
        key.require_dtype([&](Dtype d) { return d == query.array.dtype; }, "the dtype of query");
    }
    key.require_size(0, p.batch);
    key.require_size(3, p.dim);
    p.kv_heads = key.size[1], p.keys = key.size[2];
    p.key = key.array;
    if (p.heads < 1 || p.kv_heads < 1 || p.heads % p.kv_heads != 0) {
        refuse("query has ", p.heads, " heads, key ", p.kv_heads, "; the first must be a multiple of the second");
    }
    if (p.queries < 1 || p.keys < 1 || p.dim < 1) {
        refuse("query ", query.shape(), " and key ", key.shape(), " need at least one position and one channel");
    }
    // Expanded tensors may claim any size: keep the sizes that the kernels multiply far from overflow.
    if (p.batch > kMostScores / p.heads / p.keys) {
        refuse("query ", query.shape(), " and key ", key.shape(), " make more than ", kMostScores, " scores");
    }
    const int64_t max_dim = reader.on_cpu() ? vea::kMaxDim : kMaxDimCuda;
    if (p.dim > max_dim) refuse("query has ", p.dim, " channels per head; the kernel takes 1 to ", max_dim);
    if (p.dim > 1 && p.key.stride[3] != 1) {
        refuse("key has stride ", p.key.stride[3], " along its channels; pass key.contiguous()");
    }
    if (reader.on_cpu()) return;
    if (p.heads > kMaxHeadsCuda) refuse("query has ", p.heads, " heads; the kernel takes 1 to ", kMaxHeadsCuda);
    check_counts(query, key, p);
}

Tensor read_image_index(Reader& reader, py::handle tensor) {
    const Tensor index = reader.read(tensor, "image_index", 2);
    index.require_dtype(is_index, kIndices);
    checked_tokens(index, reader.on_cpu() ? kMostTokens : kMaxCountCuda);
    return index;
}

vea::ImageAttention checked(const py::tuple& arguments, py::handle out_tensor, bool accumulate, py::handle chosen,
                            py::handle stats, bool on_cpu) {
    const Call call(arguments);
    Reader reader(on_cpu);
    vea::ImageAttention p;
    read_query_and_key(reader, call.query, call.key, p);

    const Tensor image_index = read_image_index(reader, call.image_index);
    image_index.require_size(0, p.batch);
    p.tokens = image_index.size[1];
    p.image_index = image_index.array;

    const Tensor query_index = reader.optional(call.query_index, "query_index", 1);
    const Tensor key_start = reader.optional(call.key_start, "key_start", 1);
    const Tensor key_stop = reader.optional(call.key_stop, "key_stop", 1);
    for (const Tensor* t : {&query_index, &key_start, &key_stop}) {
        if (!t->given()) continue;
        t->require_dtype(is_index, kIndices);
        t->require_size(0, p.batch);
    }
    p.query_index = query_index.array, p.key_start = key_start.array, p.key_stop = key_stop.array;

    Tensor mask = reader.optional(call.mask, "mask", 4);
    Tensor position_bias = reader.optional(call.position_bias, "position_bias", 4);
    for (Tensor* t : {&mask, &position_bias}) {
        if (!t->given()) continue;
        t->require_size(0, p.batch, true);
        t->require_size(1, p.heads, true);
        t->require_size(2, p.queries, true);
        if (t->size[3] < p.keys) refuse(t->name, " covers ", t->size[3], " keys, but key holds ", p.keys);
        t->broadcast();
    }
    if (mask.given()) {
        mask.require_dtype([](Dtype d) { return d == Dtype::boolean || is_float(d); },
                           "torch.bool, torch.float32, torch.float16, torch.bfloat16");
    }
    if (position_bias.given()) position_bias.require_dtype(is_float, kFloats);
    p.mask = mask.array, p.position_bias = position_bias.array;

    const Tensor sinks = reader.optional(call.sinks, "sinks", 1);
    if (sinks.given()) {
        sinks.require_dtype(is_float, kFloats);
        sinks.require_size(0, p.heads);
    }
    p.sinks = sinks.array;

    p.scale = number<float>(call.scale, "scale", "a number");
    p.weight = number<float>(call.weight, "weight", "a number");
    if (!call.softcap.is_none()) {
        p.softcap = number<float>(call.softcap, "softcap", "a positive number or None");
        if (!(p.softcap > 0 && std::isfinite(p.softcap))) {
            refuse("softcap = ", p.softcap, "; give a positive number or None");
        }
    }
    if (!call.window.is_none()) {
        p.window = number<int64_t>(call.window, "window", "a positive number of keys or None");
        if (p.window < 1) refuse("window = ", p.window, "; give a positive number of keys or None");
    }

    p.per_head = number<bool>(call.per_head, "per_head", "True or False");
    const Tensor out = reader.read(out_tensor, "out", p.per_head ? 3 : 2);
    out.require_dtype([](Dtype d) { return d == Dtype::f32; }, "torch.float32");
    out.require_size(0, p.batch);
    if (p.per_head) out.require_size(1, p.heads);
    const int last = out.rank - 1;
    out.require_size(last, p.tokens);
    if (p.tokens > 1 && out.array.stride[last] != 1) {
        refuse("out has stride ", out.array.stride[last], " along its last dimension; it must be contiguous there");
    }
    check_rows_apart(out);
    p.out = static_cast<float*>(const_cast<void*>(out.array.data));
    p.out_stride[0] = out.array.stride[0];
    p.out_stride[1] = p.per_head ? out.array.stride[1] : 0;
    p.accumulate = accumulate;

    p.chosen = output_mask(reader, chosen, p.batch, p.tokens);
    p.top_k = call.top_k.is_none() ? 0 : checked_k("top_k", call.top_k, p.tokens);
    p.stats = output_stats(reader, stats, p.batch);

    if (on_cpu) {
        check_values(image_index, -1, p.keys);
        check_values(query_index, 0, p.queries);
    }
    return p;
}

vea::TopkMask checked(py::handle scores, py::handle k, py::handle chosen, bool on_cpu) {
    Reader reader(on_cpu);
    vea::TopkMask p;
    const Tensor values = reader.read(scores, "scores", 2);
    values.require_dtype(is_float, "torch.float32, torch.float16, torch.bfloat16");
    p.batch = values.size[0], p.tokens = checked_tokens(values);
    p.scores = values.array;
    p.k = checked_k("k", k, p.tokens);
    p.chosen = output_mask(reader, chosen, p.batch, p.tokens);
    return p;
}

// Rows of decoding steps over the same image tokens. What stays from step to step is read and checked once, so that a step
// looks at its query and keys alone.
class StepReader {
public:
    StepReader(const py::object& image_index, const py::object& scores, const py::object& stats, bool on_cpu)
        : kept_{image_index, scores, stats}, reader_(on_cpu) {
        const Tensor rows = reader_.read(scores, "scores", 3);
        const Tensor index = read_image_index(reader_, image_index);
        step_.batch = index.size[0], step_.tokens = index.size[1];
        step_.image_index = index.array;
        if (on_cpu) last_ = check_values(index, -1, std::numeric_limits<int64_t>::max());
        rows_ = rows.size[0];
        scores_ = buffer(rows, step_.tokens);
        stats_ = buffer(reader_.read(stats, "stats", 3), 4);
    }

    py::handle scores() const { return kept_[1]; }

    // What to run; nothing where it is not a call for this one.
    std::optional<vea::ImageAttention> step(int64_t row, py::handle query, py::handle key, py::handle scale, int64_t kept) {
        vea::ImageAttention p = step_;
        if (!vea::is_plain_tensor(query) || !vea::is_plain_tensor(key)) return {};
        try {
            read_query_and_key(reader_, query, key, p);
        } catch (const InvalidInput&) {
            return {};
        }
        if (row < 0 || row >= rows_ || p.batch != step_.batch || p.queries != 1) return {};
        if (p.keys < kept || p.keys <= last_) return {};
        p.scale = scale.is_none() ? 1 / std::sqrt(float(p.dim)) : number<float>(scale, "scale", "a number or None");
        p.out = scores_ + row * p.batch * p.tokens;
        p.out_stride[0] = p.tokens;
        p.stats = stats_ + row * p.batch * 4;
        return p;
    }

private:
    float* buffer(const Tensor& t, int64_t width) const {  // [rows_, B, width]
        t.require_dtype([](Dtype d) { return d == Dtype::f32; }, "torch.float32");
        int64_t packed = 1;  // 0: there are no elements
        const int64_t sizes[] = {rows_, step_.batch, width};
        for (int i = 2; i >= 0; --i) {
            t.require_size(i, sizes[i]);
            if (sizes[i] > 1 && packed > 0 && t.array.stride[i] != packed) {
                refuse(t.name, " has stride ", t.array.stride[i], " in dimension ", i, "; it must be contiguous");
            }
            packed *= sizes[i];
        }
        return static_cast<float*>(const_cast<void*>(t.array.data));
    }

    const py::object kept_[3];  // the owners of the memory
    Reader reader_;             // knows the device
    vea::ImageAttention step_;  // what all steps have in common
    int64_t rows_;
    int64_t last_ = -1;  // the largest image index; on a GPU nobody looks
    float *scores_, *stats_;
};

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled operators of vea_sdk; call them through vea_sdk.ops.";
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const InvalidInput& error) {
            py::set_error(py::module_::import("vea_sdk.errors").attr("InvalidInputError"), error.message.c_str());
        } catch (const DeviceError& error) {
            py::set_error(py::module_::import("vea_sdk.errors").attr("NativeExtensionError"), error.message.c_str());
        }
    });

    m.attr("max_dim_cpu") = vea::kMaxDim;
    m.attr("max_dim_cuda") = kMaxDimCuda;
    m.attr("max_heads_cuda") = kMaxHeadsCuda;
#if defined(__clang__)
    m.attr("compiler") = __VERSION__;
#else
    m.attr("compiler") = "GCC " __VERSION__;
#endif
#ifdef VEA_CUDA_ARCHS
    m.attr("cuda_archs") = VEA_CUDA_ARCHS;
#else
    m.attr("cuda_archs") = "";
#endif
    m.def("cpu_path", [] { return vea::cpu_path().name; });
    m.def("leave_torchs_threads", vea::leave_torchs_threads);

    vea::bind_evidence(m);
    vea::bind_tap(m);
    m.def("image_attention_cpu", [](const py::tuple& arguments, py::handle out, bool accumulate, py::handle chosen,
                                    py::handle stats, int threads) {
        const vea::ImageAttention problem = checked(arguments, out, accumulate, chosen, stats, true);
        py::gil_scoped_release release;
        vea::cpu::image_attention(problem, threads);
    });
    m.def("step_reader_cpu", [](const py::object& image_index, const py::object& scores, const py::object& stats,
                                int threads) {
        const auto reader = std::make_shared<StepReader>(image_index, scores, stats, true);
        const auto runs = std::make_shared<vea::cpu::ImageRuns>();
        return py::cpp_function([reader, runs, threads](int64_t row, py::handle query, py::handle key, py::handle scale,
                                                        int64_t kept) {
            const auto problem = reader->step(row, query, key, scale, kept);
            if (!problem) return false;
            py::gil_scoped_release release;
            vea::cpu::image_attention(*problem, *runs, threads);
            return true;
        });
    });
    m.def("topk_mask_cpu", [](py::handle scores, py::handle k, py::handle chosen, int threads) {
        const vea::TopkMask problem = checked(scores, k, chosen, true);
        py::gil_scoped_release release;
        vea::cpu::topk_mask(problem, threads);
    });

#ifdef VEA_CUDA_ARCHS
    m.def("cuda_devices", [] {  // (number of devices, what went wrong or "")
        int count = 0;
        const int code = vea_cuda_devices(&count);
        return std::pair(count, std::string(code == 0 ? "" : vea_cuda_error(code)));
    });
    m.def("image_attention_cuda", [](const py::tuple& arguments, py::handle out, bool accumulate, py::handle chosen,
                                     py::handle stats, uintptr_t stream) {
        launch(checked(arguments, out, accumulate, chosen, stats, false), out, stream);
    });
    m.def("step_reader_cuda", [](const py::object& image_index, const py::object& scores, const py::object& stats) {
        const auto reader = std::make_shared<StepReader>(image_index, scores, stats, false);
        return py::cpp_function([reader](int64_t row, py::handle query, py::handle key, py::handle scale, int64_t kept,
                                         uintptr_t stream) {
            const auto problem = reader->step(row, query, key, scale, kept);
            if (problem) launch(*problem, reader->scores(), stream);
            return problem.has_value();
        });
    });
    m.def("topk_mask_cuda", [](py::handle scores, py::handle k, py::handle chosen, uintptr_t stream) {
        const vea::TopkMask problem = checked(scores, k, chosen, false);
        py::gil_scoped_release release;
        check_launch(vea_topk_mask(&problem, reinterpret_cast<void*>(stream)));
    });
#endif
}
