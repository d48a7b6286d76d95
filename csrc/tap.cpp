// What a model gets for its attention function while somebody watches. Each layer of each step calls it, and finds the
// processor's cache full of weights: the Python that a layer runs for nothing is worth a part of a row that is read.
#include "tap.h"

#include <structmember.h>

#include <cstddef>
#include <vector>

namespace py = pybind11;

namespace vea {
namespace {

struct Tap {
    PyObject ob_base;
    vectorcallfunc call;
    PyObject* active;    // context variable: a tuple of observers, each with its `modules`
    PyObject* attend;    // called with the two below and the arguments where one of them has the module
    PyObject* function;  // called with the arguments alone where none has
    PyObject* implementation;
};

PyObject* type = nullptr;     // of taps
PyObject* modules = nullptr;  // the attribute's name

// Whether one of the observers has the module; -1: an error is set.
int watched(PyObject* active, PyObject* module) {
    PyObject* observers = nullptr;
    if (PyContextVar_Get(active, nullptr, &observers) < 0) return -1;
    int found = 0;
    for (Py_ssize_t i = 0; found == 0 && i < PyTuple_GET_SIZE(observers); ++i) {
        PyObject* all = PyObject_GetAttr(PyTuple_GET_ITEM(observers, i), modules);
        found = all ? PySequence_Contains(all, module) : -1;
        Py_XDECREF(all);
    }
    Py_DECREF(observers);
    return found;
}

PyObject* call(PyObject* self, PyObject* const* arguments, size_t flags, PyObject* names) {
    const Tap* tap = reinterpret_cast<Tap*>(self);
    const Py_ssize_t n = PyVectorcall_NARGS(flags);
    const int found = n == 0 ? 1 : watched(tap->active, arguments[0]);  // none: attend() says what is missing
    if (found < 0) return nullptr;
    if (found == 0) return PyObject_Vectorcall(tap->function, arguments, flags, names);
    std::vector<PyObject*> all{tap->function, tap->implementation};
    all.insert(all.end(), arguments, arguments + n + (names ? PyTuple_GET_SIZE(names) : 0));
    return PyObject_Vectorcall(tap->attend, all.data(), size_t(n) + 2, names);
}

void release(PyObject* self) {
    const Tap* tap = reinterpret_cast<Tap*>(self);
    for (PyObject* one : {tap->active, tap->attend, tap->function, tap->implementation}) Py_DECREF(one);
    PyTypeObject* const kind = Py_TYPE(self);
    kind->tp_free(self);
    Py_DECREF(kind);
}

PyObject* make(PyObject*, PyObject* const* arguments, Py_ssize_t n) {
    if (n != 4 || !PyContextVar_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "tap(active: ContextVar, attend, function, implementation)");
        return nullptr;
    }
    Tap* tap = PyObject_New(Tap, reinterpret_cast<PyTypeObject*>(type));
    if (tap == nullptr) return nullptr;
    for (Py_ssize_t i = 0; i < n; ++i) Py_INCREF(arguments[i]);
    tap->call = call;
    tap->active = arguments[0], tap->attend = arguments[1];
    tap->function = arguments[2], tap->implementation = arguments[3];
    return reinterpret_cast<PyObject*>(tap);
}

PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Tap, call), READONLY, nullptr}, {}};
PyType_Slot slots[] = {{Py_tp_members, members},
                       {Py_tp_dealloc, reinterpret_cast<void*>(release)},
                       {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                       {0, nullptr}};
PyType_Spec spec = {"vea_sdk._C.Tap", sizeof(Tap), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
PyMethodDef maker = {"tap", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(make)), METH_FASTCALL, nullptr};

}  // namespace

void bind_tap(py::module_& m) {
    modules = PyUnicode_InternFromString("modules");
    type = PyType_FromSpec(&spec);
    if (type == nullptr) throw py::error_already_set();
    m.add_object("tap", py::reinterpret_steal<py::object>(PyCFunction_New(&maker, nullptr)));
}

}  // namespace vea
