// Tensors by duck typing, so that one build serves every torch. Everything that could make a kernel read or write out of place
// is refused before any pointer is used, in a message that names the argument.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "dlpack.h"
#include "problem.h"

namespace vea {

namespace py = pybind11;

struct InvalidInput {
    std::string message;
};

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
    PyObject* new_empty = PyUnicode_InternFromString("new_empty");
    PyObject* tensor;  // the type
    dlpack::Read read = nullptr;  // of a tensor of this very type; nullptr where torch is too old
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
        dtypes[0] = known("float32", Dtype::f32, 4, dlpack::kFloat);
        dtypes[1] = known("float16", Dtype::f16, 2, dlpack::kFloat);
        dtypes[2] = known("bfloat16", Dtype::bf16, 2, dlpack::kBfloat);
        dtypes[3] = known("int64", Dtype::i64, 8, dlpack::kInt);
        dtypes[4] = known("int32", Dtype::i32, 4, dlpack::kInt);
        dtypes[5] = known("bool", Dtype::boolean, 1, dlpack::kBool);
        const py::object capsule = py::getattr(tensor, "__dlpack_c_exchange_api__", py::none());
        if (PyCapsule_IsValid(capsule.ptr(), dlpack::kCapsule)) {
            read = dlpack::reader(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
        }
    }
};

inline const Names& names() {
    static const Names* const instance = new Names;  // never freed: the interpreter may be gone before statics are
    return *instance;
}

inline bool is_plain_tensor(py::handle object) { return py::type::handle_of(object).ptr() == names().tensor; }

inline py::object attribute(py::handle object, PyObject* name) {
    PyObject* value = PyObject_GetAttr(object.ptr(), name);
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

inline py::object call(py::handle object, PyObject* name) {
    PyObject* value = PyObject_CallMethodNoArgs(object.ptr(), name);
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

inline py::object call(py::handle object, PyObject* name, const py::object& argument) {
    PyObject* value = PyObject_CallMethodOneArg(object.ptr(), name, argument.ptr());
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

inline std::string text(py::handle object) { return std::string(py::str(object)); }

template <class Number>
Number number(py::handle value, const char* name, const char* wanted) {
    // True is an integer to Python, and no number of anything.
    const bool truth = std::is_integral_v<Number> && !std::is_same_v<Number, bool> && PyBool_Check(value.ptr());
    try {
        if (!truth) return value.cast<Number>();
    } catch (const py::cast_error&) {
    }
    refuse(name, " = ", text(py::repr(value)), "; give ", wanted);
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

inline bool is_float(Dtype d) { return d == Dtype::f32 || d == Dtype::f16 || d == Dtype::bf16; }
inline bool is_index(Dtype d) { return d == Dtype::i32 || d == Dtype::i64; }

// Reads the tensors of one call and holds them to the device of the first.
class Reader {
public:
    explicit Reader(bool on_cpu) : on_cpu_(on_cpu) {}

    bool on_cpu() const { return on_cpu_; }

    Tensor optional(py::handle object, const char* name, int rank) {
        return object.is_none() ? Tensor{name, {}} : read(object, name, rank);
    }

    Tensor read(py::handle object, const char* name, int rank) {
        Tensor t{name, {}};
        PyObject* const tensor = names().tensor;
        const bool plain = is_plain_tensor(object);
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
        dlpack::Tensor found;
        if (names().read == nullptr) return false;
        if (names().read(object.ptr(), &found) != 0) {
            PyErr_Clear();
            return false;
        }
        if (found.rank != rank || !find_dtype(found, t)) return false;
        if (on_cpu_) {
            if (found.device.type != dlpack::kHost) return false;
        } else if (found.device.type != at_.type || found.device.id != at_.id) {
            check_device(object, t.name);
            at_ = found.device;
        }
        t.rank = rank;
        std::copy_n(found.shape, rank, t.size);
        std::copy_n(found.stride, rank, t.array.stride);
        t.array.data = static_cast<const char*>(found.data) + found.byte_offset;
        return true;
    }

    static bool find_dtype(const dlpack::Tensor& found, Tensor& t) {
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
    dlpack::Device at_{0, 0};  // the same, once a tensor on it was read at once; 0 is no type
};

}  // namespace vea
