// The only file that knows Python. Tensors are read by duck typing (data_ptr, shape, stride, dtype, is_cpu, is_cuda), so
// that one build serves every torch. Everything that could make a kernel read or write out of place is refused here,
// before any pointer is used, in a message that names the argument.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <utility>

#include "bindings_evidence.h"
#include "cpu/inner.h"
#include "cpu/ops.h"
#include "dlpack.h"
#include "numerics.h"
#include "problem.h"
#ifdef VEA_CUDA_ARCHS
#include "cuda/ops.h"
#endif

namespace py = pybind11;

namespace {

using vea::Array;
using vea::Dtype;

constexpr int64_t kMostScores = int64_t(1) << 40;  // B * Hq * Lk
constexpr int64_t kMostTokens = (int64_t(1) << 31) - 1;  // top-k counts in 32 bits

struct InvalidInput {
    std::string message;
};

struct DeviceError {
    std::string message;
};

#ifdef VEA_CUDA_ARCHS
constexpr int64_t kMaxDimCuda = vea::cuda::kMaxDim;

void check_launch(int code) {
    if (code != 0) throw DeviceError{std::string("the CUDA kernel was not launched: ") + vea_cuda_error(code)};
}
#else
constexpr int64_t kMaxDimCuda = 0;
#endif

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw InvalidInput{text.str()};
}

// Attribute names and torch's dtypes, fetched once: looking them up by C string would cost more than the kernel.
struct Names {
    PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
    PyObject* shape = PyUnicode_InternFromString("shape");
    PyObject* stride = PyUnicode_InternFromString("stride");
    PyObject* dtype = PyUnicode_InternFromString("dtype");
    PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
    PyObject* device = PyUnicode_InternFromString("device");
    PyObject* is_neg = PyUnicode_InternFromString("is_neg");
    PyObject* tensor;  // the type
    vea::dlpack::Read read = nullptr;  // of a tensor of this very type; nullptr where torch is too old
    struct Known {
        PyObject* object;
        Dtype code;
        int64_t size;
        const char* name;
        int kind;  // to DLPack
    } dtypes[6];

    Names() {
        const py::module_ torch = py::module_::import("torch");
        tensor = py::object(torch.attr("Tensor")).release().ptr();
        const auto known = [&](const char* name, Dtype code, int64_t size, int kind) {
            return Known{py::object(torch.attr(name)).release().ptr(), code, size, name, kind};
        };
        dtypes[0] = known("float32", Dtype::f32, 4, vea::dlpack::kFloat);
        dtypes[1] = known("float16", Dtype::f16, 2, vea::dlpack::kFloat);
        dtypes[2] = known("bfloat16", Dtype::bf16, 2, vea::dlpack::kBfloat);
        dtypes[3] = known("int64", Dtype::i64, 8, vea::dlpack::kInt);
        dtypes[4] = known("int32", Dtype::i32, 4, vea::dlpack::kInt);
        dtypes[5] = known("bool", Dtype::boolean, 1, vea::dlpack::kBool);
        const py::object capsule = py::getattr(tensor, "__dlpack_c_exchange_api__", py::none());
        if (PyCapsule_IsValid(capsule.ptr(), vea::dlpack::kCapsule)) {
            read = vea::dlpack::reader(PyCapsule_GetPointer(capsule.ptr(), vea::dlpack::kCapsule));
        }
    }
};

const Names& names() {
    static const Names* const instance = new Names;  // never freed: the interpreter may be gone before statics are
    return *instance;
}

py::object attribute(py::handle object, PyObject* name) {
    PyObject* value = PyObject_GetAttr(object.ptr(), name);
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

py::object call(py::handle object, PyObject* name) {
    PyObject* value = PyObject_CallMethodNoArgs(object.ptr(), name);
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

std::string text(py::handle object) { return std::string(py::str(object)); }

template <class Number>
Number number(py::handle value, const char* name, const char* wanted) {
    try {
        return value.cast<Number>();
    } catch (const py::cast_error&) {
        refuse(name, " = ", text(py::repr(value)), "; give ", wanted);
    }
}

// One tensor argument: what the kernels need of it, and what the messages need.
struct Tensor {
    const char* name;
    Array array;
    int64_t size[4] = {1, 1, 1, 1};
    int64_t itemsize = 0;
    int rank = 0;

    bool given() const { return rank > 0; }

    std::string shape() const {
        std::ostringstream result;
        for (int i = 0; i < rank; ++i) result << (i ? ", " : "[") << size[i];
        return result.str() + "]";
    }

    // Size 1 is allowed where the kernel walks further: it stays in place.
    void broadcast() {
        for (int i = 0; i < rank; ++i) {
            if (size[i] == 1) array.stride[i] = 0;
        }
    }

    void require_size(int dimension, int64_t wanted, bool or_one = false) const {
        if (size[dimension] == wanted || (or_one && size[dimension] == 1)) return;
        refuse(name, " has shape ", shape(), "; dimension ", dimension, " must be ", wanted, or_one ? " or 1" : "");
    }

    template <class Accept>
    void require_dtype(Accept accept, const char* allowed) const {
        if (accept(array.dtype)) return;
        const char* found = "";
        for (const auto& known : names().dtypes) found = known.code == array.dtype ? known.name : found;
        refuse(name, " is torch.", found, "; allowed: ", allowed);
    }
};

bool is_float(Dtype d) { return d == Dtype::f32 || d == Dtype::f16 || d == Dtype::bf16; }
bool is_index(Dtype d) { return d == Dtype::i32 || d == Dtype::i64; }

// Reads the tensors of one call and holds them to the device of the first.
class Reader {
public:
    explicit Reader(bool on_cpu) : on_cpu_(on_cpu) {}

    Tensor optional(py::handle object, const char* name, int rank) {
        return object.is_none() ? Tensor{name, {}} : read(object, name, rank);
    }

    Tensor read(py::handle object, const char* name, int rank) {
        Tensor t{name, {}};
        PyObject* const tensor = names().tensor;
        const bool plain = py::type::handle_of(object).ptr() == tensor;
        if (!plain && PyObject_IsInstance(object.ptr(), tensor) != 1) {
            refuse(name, " is ", text(py::type::of(object)), "; give a torch.Tensor");
        }
        try {
            if (!plain || !read_at_once(object, rank, t)) read_by_attributes(object, rank, t);
            check_memory(object, t);
        } catch (const py::error_already_set& error) {  // sparse, nested, inside vmap
            refuse(name, " has no strided memory: ", text(error.value()));
        }
        return t;
    }

private:
    // One call into torch instead of five, each of which takes its own way through code and data that the model has pushed
    // out of the cache. What it cannot read is left to the five, and to their messages.
    bool read_at_once(py::handle object, int rank, Tensor& t) {
        vea::dlpack::Tensor found;
        if (names().read == nullptr) return false;
        if (names().read(object.ptr(), &found) != 0) {
            PyErr_Clear();
            return false;
        }
        if (found.rank != rank || !find_dtype(found, t)) return false;
        if (on_cpu_ != (found.device.type == vea::dlpack::kHost)) return false;
        if (!on_cpu_) check_device(object, t.name);
        t.rank = rank;
        std::copy_n(found.shape, rank, t.size);
        std::copy_n(found.stride, rank, t.array.stride);
        t.array.data = static_cast<const char*>(found.data) + found.byte_offset;
        return true;
    }

    static bool find_dtype(const vea::dlpack::Tensor& found, Tensor& t) {
        for (const auto& known : names().dtypes) {
            if (found.dtype.kind != known.kind || found.dtype.bits != 8 * known.size || found.dtype.lanes != 1) continue;
            t.array.dtype = known.code;
            t.itemsize = known.size;
            return true;
        }
        return false;
    }

    void read_by_attributes(py::handle object, int rank, Tensor& t) {
        const py::tuple shape = attribute(object, names().shape);
        const py::tuple stride = call(object, names().stride);
        t.rank = int(shape.size());
        if (t.rank != rank) {
            refuse(t.name, " has shape ", text(py::list(shape)), "; it needs ", rank, " dimensions");
        }
        for (int i = 0; i < rank; ++i) {
            t.size[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
            t.array.stride[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(stride.ptr(), i));
        }
        read_dtype(object, t);
        check_device(object, t.name);
        const py::object pointer = call(object, names().data_ptr);
        t.array.data = PyLong_AsVoidPtr(pointer.ptr());
        if (PyErr_Occurred()) throw py::error_already_set();
    }

    void check_memory(py::handle object, Tensor& t) {
        if (is_float(t.array.dtype) && call(object, names().is_neg).ptr() == Py_True) {  // memory holds -x
            refuse(t.name, " is a negated view; pass ", t.name, ".resolve_neg()");
        }
        static const char nothing = 0;
        const bool empty = std::count(t.size, t.size + t.rank, 0) > 0;
        if (empty) t.array.data = &nothing;  // given, but never read
        if (t.array.data == nullptr) refuse(t.name, " has no memory (data_ptr() is 0)");
        if (!empty && reinterpret_cast<uintptr_t>(t.array.data) % t.itemsize != 0) {
            refuse(t.name, " is not aligned to its ", t.itemsize, "-byte elements; pass ", t.name, ".clone()");
        }
    }

    void read_dtype(py::handle object, Tensor& t) {
        const py::object dtype = attribute(object, names().dtype);
        for (const auto& known : names().dtypes) {
            if (dtype.ptr() != known.object) continue;
            t.array.dtype = known.code;
            t.itemsize = known.size;
            return;
        }
        refuse(t.name, " is ", text(dtype), "; no kernel reads it");
    }

    void check_device(py::handle object, const char* name) {
        if (on_cpu_) {
            if (attribute(object, names().is_cpu).ptr() == Py_True) return;
            refuse(name, " is on ", text(attribute(object, names().device)), ", query on cpu; move it with ", name,
                   ".to(\"cpu\")");
        }
        const py::object device = attribute(object, names().device);
        if (!device_) device_ = device;
        if (!device_.equal(device)) {
            refuse(name, " is on ", text(device), ", query on ", text(device_), "; move it with ", name, ".to(\"",
                   text(device_), "\")");
        }
    }

    bool on_cpu_;
    py::object device_;
};

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

// Index values can only be looked at in host memory; on a GPU the kernel answers bad ones with NaN.
void check_values(const Tensor& index, int64_t low, int64_t end) {
    if (!index.given()) return;
    for (int64_t i = 0; i < index.size[0]; ++i) {
        for (int64_t j = 0; j < index.size[1]; ++j) {
            const int64_t value = vea::load_index(index.array.data, index.array.dtype,
                                                  i * index.array.stride[0] + j * index.array.stride[1]);
            if (value < low || value >= end) {
                refuse(index.name, " holds ", value, "; allowed: ", low, " to ", end - 1);
            }
        }
    }
}

int64_t checked_tokens(const Tensor& t) {
    if (t.size[1] > kMostTokens) refuse(t.name, " has shape ", t.shape(), "; at most ", kMostTokens, " tokens");
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

vea::ImageAttention checked(const py::tuple& arguments, py::handle out_tensor, bool accumulate, py::handle chosen,
                            py::handle stats, bool on_cpu) {
    const Call call(arguments);
    Reader reader(on_cpu);
    vea::ImageAttention p;
    const auto floats = "torch.float32, torch.float16, torch.bfloat16";
    const auto indices = "torch.int32, torch.int64";

    const Tensor query = reader.read(call.query, "query", 4);
    query.require_dtype(is_float, floats);
    p.batch = query.size[0], p.heads = query.size[1], p.queries = query.size[2], p.dim = query.size[3];
    p.query = query.array;

    const Tensor key = reader.read(call.key, "key", 4);
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
    const int64_t max_dim = on_cpu ? vea::kMaxDim : kMaxDimCuda;
    if (p.dim > max_dim) refuse("query has ", p.dim, " channels per head; the kernel takes 1 to ", max_dim);
    if (p.dim > 1 && p.key.stride[3] != 1) {
        refuse("key has stride ", p.key.stride[3], " along its channels; pass key.contiguous()");
    }

    const Tensor image_index = reader.read(call.image_index, "image_index", 2);
    image_index.require_dtype(is_index, indices);
    image_index.require_size(0, p.batch);
    p.tokens = checked_tokens(image_index);
    p.image_index = image_index.array;

    const Tensor query_index = reader.optional(call.query_index, "query_index", 1);
    const Tensor key_start = reader.optional(call.key_start, "key_start", 1);
    const Tensor key_stop = reader.optional(call.key_stop, "key_stop", 1);
    for (const Tensor* t : {&query_index, &key_start, &key_stop}) {
        if (!t->given()) continue;
        t->require_dtype(is_index, indices);
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
    if (position_bias.given()) position_bias.require_dtype(is_float, floats);
    p.mask = mask.array, p.position_bias = position_bias.array;

    const Tensor sinks = reader.optional(call.sinks, "sinks", 1);
    if (sinks.given()) {
        sinks.require_dtype(is_float, floats);
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

    vea::bind_evidence(m);
    m.def("image_attention_cpu", [](const py::tuple& arguments, py::handle out, bool accumulate, py::handle chosen,
                                    py::handle stats, int threads) {
        const vea::ImageAttention problem = checked(arguments, out, accumulate, chosen, stats, true);
        py::gil_scoped_release release;
        vea::cpu::image_attention(problem, threads);
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
    m.def("image_attention_workspace",  // (32-bit tickets, floats)
          [](int64_t batch, int64_t heads, int64_t kv_heads, int64_t keys, int64_t tokens) {
              vea::ImageAttention p;
              p.batch = batch, p.heads = heads, p.kv_heads = kv_heads, p.keys = keys, p.tokens = tokens;
              const vea::cuda::Workspace workspace = vea::cuda::image_attention_workspace(p);
              return std::pair(workspace.tickets, workspace.floats);
          });
    m.def("image_attention_cuda", [](const py::tuple& arguments, py::handle out, bool accumulate, py::handle chosen,
                                     py::handle stats, uintptr_t tickets, uintptr_t workspace, uintptr_t stream) {
        const vea::ImageAttention problem = checked(arguments, out, accumulate, chosen, stats, false);
        py::gil_scoped_release release;
        check_launch(vea_image_attention(&problem, reinterpret_cast<unsigned*>(tickets),
                                         reinterpret_cast<float*>(workspace), reinterpret_cast<void*>(stream)));
    });
    m.def("topk_mask_cuda", [](py::handle scores, py::handle k, py::handle chosen, uintptr_t stream) {
        const vea::TopkMask problem = checked(scores, k, chosen, false);
        py::gil_scoped_release release;
        check_launch(vea_topk_mask(&problem, reinterpret_cast<void*>(stream)));
    });
#endif
}
