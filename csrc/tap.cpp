// What a model gets for its attention function while somebody watches. Each layer of each step calls it, and finds the
// processor's cache full of weights: the Python that a layer runs is worth a part of a row that is read. So a call that
// nobody watches goes on from here, and a plain step of decoding is read from here.
#include "tap.h"

#include <structmember.h>

#include <cstddef>
#include <cstring>
#include <vector>

namespace py = pybind11;

namespace vea {
namespace {

struct Tap {
    PyObject ob_base;
    vectorcallfunc call;
    PyObject* owner;     // whose three parts every tap of it has: a tuple, see Part
    PyObject* function;
    PyObject* implementation;

    PyObject* part(int i) const { return PyTuple_GET_ITEM(owner, i); }
};

enum Part {
    kActive,    // context variable: a tuple of observers (capture/interception.py says what they have)
    kAttend,    // called with the function, the implementation and the arguments, where the call is watched
    kAttended,  // the same once the function was called: with its result
    kParts
};

struct Names {
    PyObject* modules = PyUnicode_InternFromString("modules");
    PyObject* steps = PyUnicode_InternFromString("steps");
    PyObject* mask = PyUnicode_InternFromString("attention_mask");
    PyObject* scaling = PyUnicode_InternFromString("scaling");
    PyObject* window = PyUnicode_InternFromString("sliding_window");
    PyObject* more[4] = {PyUnicode_InternFromString("cache"), PyUnicode_InternFromString("softcap"),
                         PyUnicode_InternFromString("s_aux"), PyUnicode_InternFromString("position_bias")};
};
const Names* names_;  // never freed, as `type`
PyObject* type = nullptr;  // of taps

struct Call {
    PyObject* const* arguments;
    size_t flags;
    PyObject* names;

    Py_ssize_t positional() const { return PyVectorcall_NARGS(flags); }
    PyObject* of(PyObject* function) const { return PyObject_Vectorcall(function, arguments, flags, names); }
    PyObject* behind(PyObject* first, PyObject* second, PyObject* function) const {
        const Py_ssize_t n = positional();
        std::vector<PyObject*> all{first, second};
        all.insert(all.end(), arguments, arguments + n + (names ? PyTuple_GET_SIZE(names) : 0));
        return PyObject_Vectorcall(function, all.data(), size_t(n) + 2, names);
    }
};

// The observers of the running context, a tuple; nothing: a Python error is set.
py::object observers_of(PyObject* owner) {
    PyObject* found = nullptr;
    if (PyContextVar_Get(PyTuple_GET_ITEM(owner, kActive), nullptr, &found) < 0) return {};
    auto observers = py::reinterpret_steal<py::object>(found);
    if (observers && PyTuple_Check(found)) return observers;
    PyErr_SetString(PyExc_TypeError, "the context variable holds no tuple of observers");
    return {};
}

struct Watched {
    int by = 0;                   // so many observers; -1: a Python error is set
    PyObject* observer = nullptr;  // the last of them
};

Watched watched(PyObject* observers, PyObject* module) {
    Watched found;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(observers); ++i) {
        PyObject* observer = PyTuple_GET_ITEM(observers, i);
        PyObject* modules = PyObject_GetAttr(observer, names_->modules);
        const int has = modules ? PySequence_Contains(modules, module) : -1;
        Py_XDECREF(modules);
        if (has < 0) return {-1};
        if (has) found = {found.by + 1, observer};
    }
    return found;
}

// Whether a call asks for a softmax over all keys, and nothing besides, and keeps its weights to itself.
bool is_plain(const Tap& tap, const Call& call, PyObject** scaling) {
    const auto equal = [](PyObject* a, PyObject* b) {
        return a == b || (!PyUnicode_CHECK_INTERNED(a) && PyUnicode_Compare(a, b) == 0);  // b is interned
    };
    const char* implementation = PyUnicode_Check(tap.implementation) ? PyUnicode_AsUTF8(tap.implementation) : "";
    if (implementation == nullptr) PyErr_Clear();  // a name that is no text
    const Py_ssize_t n = call.positional();
    if (implementation == nullptr || std::strcmp(implementation, "eager") == 0 || n < 4 || n > 5) return false;
    if (n == 5 && call.arguments[4] != Py_None) return false;
    *scaling = Py_None;
    for (Py_ssize_t i = 0; call.names && i < PyTuple_GET_SIZE(call.names); ++i) {
        PyObject *name = PyTuple_GET_ITEM(call.names, i), *value = call.arguments[n + i];
        if (equal(name, names_->scaling)) *scaling = value;
        if (value == Py_None) continue;
        if (equal(name, names_->mask)) return false;
        if (equal(name, names_->window) && std::strstr(implementation, "flash")) return false;
        for (PyObject* one : names_->more) {
            if (equal(name, one)) return false;
        }
    }
    return true;
}

// Calls the function, then the reader. A step of decoding takes its keys from memory, whoever comes first; then they are in
// the cache, where the model's own attention makes less of them than the row does.
PyObject* read_step(const Tap& tap, const Call& call, py::handle steps, py::handle step, PyObject* scaling) {
    PyObject *reader, *row, *kept;
    if (!PyArg_ParseTuple(step.ptr(), "OOO", &reader, &row, &kept)) return nullptr;
    PyObject* const result = call.of(tap.function);
    if (result == nullptr) return nullptr;
    PyObject* const arguments[] = {row, call.arguments[1], call.arguments[2], scaling, kept};
    PyObject* const read = PyObject_Vectorcall(reader, arguments, 5, nullptr);
    int done = read ? PyObject_IsTrue(read) : -1;
    Py_XDECREF(read);
    if (done > 0 && PyDict_DelItem(steps.ptr(), call.arguments[0]) < 0) done = -1;
    if (done > 0) return result;
    PyObject* const answer = done < 0 ? nullptr : call.behind(result, tap.implementation, tap.part(kAttended));
    Py_DECREF(result);
    return answer;
}

PyObject* call(PyObject* self, PyObject* const* arguments, size_t flags, PyObject* names) {
    const Tap& tap = *reinterpret_cast<Tap*>(self);
    const Call call{arguments, flags, names};
    const auto attend = [&] { return call.behind(tap.function, tap.implementation, tap.part(kAttend)); };
    if (call.positional() == 0) return attend();  // it says what is missing
    const py::object observers = observers_of(tap.owner);
    if (!observers) return nullptr;
    const Watched found = watched(observers.ptr(), arguments[0]);
    if (found.by < 0) return nullptr;
    if (found.by == 0) return call.of(tap.function);
    if (found.by > 1) return attend();
    const auto steps = py::reinterpret_steal<py::object>(PyObject_GetAttr(found.observer, names_->steps));
    if (!steps) return nullptr;
    PyObject* const step = PyDict_GetItemWithError(steps.ptr(), arguments[0]);
    if (step == nullptr && PyErr_Occurred()) return nullptr;
    PyObject* scaling = nullptr;
    if (step == nullptr || !is_plain(tap, call, &scaling)) return attend();
    return read_step(tap, call, steps, py::reinterpret_borrow<py::object>(step), scaling);
}

void release(PyObject* self) {
    const Tap* tap = reinterpret_cast<Tap*>(self);
    for (PyObject* one : {tap->owner, tap->function, tap->implementation}) Py_DECREF(one);
    PyTypeObject* const kind = Py_TYPE(self);
    kind->tp_free(self);
    Py_DECREF(kind);
}

// A tap of a function, or in a context without observers the function itself.
PyObject* tap(PyObject* owner, PyObject* const* arguments, Py_ssize_t n) {
    if (n != 2) return PyErr_Format(PyExc_TypeError, "tap(function, implementation), got %zd arguments", n);
    const py::object observers = observers_of(owner);
    if (!observers) return nullptr;
    if (PyTuple_GET_SIZE(observers.ptr()) == 0) return Py_NewRef(arguments[0]);
    Tap* made = PyObject_New(Tap, reinterpret_cast<PyTypeObject*>(type));
    if (made == nullptr) return nullptr;
    made->call = call;
    made->owner = Py_NewRef(owner);
    made->function = Py_NewRef(arguments[0]), made->implementation = Py_NewRef(arguments[1]);
    return reinterpret_cast<PyObject*>(made);
}

PyMethodDef tap_definition = {"tap", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(tap)), METH_FASTCALL, nullptr};

PyObject* tapper(PyObject*, PyObject* owner) {
    if (PyTuple_GET_SIZE(owner) != kParts || !PyContextVar_CheckExact(PyTuple_GET_ITEM(owner, kActive))) {
        PyErr_SetString(PyExc_TypeError, "tapper(active: ContextVar, attend, attended)");
        return nullptr;
    }
    return PyCFunction_New(&tap_definition, owner);
}

PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Tap, call), READONLY, nullptr}, {}};
PyType_Slot slots[] = {{Py_tp_members, members},
                       {Py_tp_dealloc, reinterpret_cast<void*>(release)},
                       {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                       {0, nullptr}};
PyType_Spec spec = {"vea_sdk._C.Tap", sizeof(Tap), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
PyMethodDef tapper_definition = {"tapper", tapper, METH_VARARGS, nullptr};

}  // namespace

void bind_tap(py::module_& m) {
    names_ = new Names;
    type = PyType_FromSpec(&spec);
    if (type == nullptr) throw py::error_already_set();
    m.add_object("tapper", py::reinterpret_steal<py::object>(PyCFunction_New(&tapper_definition, nullptr)));
}

}  // namespace vea
