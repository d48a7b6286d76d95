// The Python side of cpu/evidence.h. Arrays come through the buffer protocol or Arrow, and are checked here.
#include "bindings_evidence.h"

#include <sstream>
#include <string>

#include "arrow.h"
#include "cpu/evidence.h"
#include "pages.h"

namespace py = pybind11;

namespace {

using vea::Range;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    py::set_error(py::module_::import("vea_sdk.errors").attr("InvalidInputError"), text.str().c_str());
    throw py::error_already_set();
}

// An array [rows, cols] or [rows, cols, channels] in C order, held while this lives.
template <class T>
struct Held {
    py::buffer_info info;
    const char* name;

    Held(const py::buffer& array, const char* name, bool writable = false) : info(array.request(writable)), name(name) {
        if (!info.item_type_is_equivalent_to<T>()) refuse(name, " has items of format ", info.format);
        py::ssize_t stride = info.itemsize;
        for (auto i = info.ndim; i-- > 0; stride *= info.shape[i]) {
            if (info.shape[i] > 1 && info.strides[i] != stride) refuse(name, " is not contiguous");
        }
    }

    T* data() const { return static_cast<T*>(info.ptr); }

    void require(std::initializer_list<int64_t> shape) const {
        bool same = size_t(info.ndim) == shape.size();
        for (size_t i = 0; same && i < shape.size(); ++i) same = info.shape[i] == shape.begin()[i];
        if (same) return;
        std::ostringstream wanted;
        for (const int64_t side : shape) wanted << ' ' << side;
        refuse(name, " must have the shape", wanted.str());
    }
};

void require_positive(std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) {
        if (size < 1) refuse("an array without elements");
    }
}

// (lowest, highest), both NaN where there is one.
std::pair<float, float> ends(const Range& range) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    return range.nan ? std::pair(nan, nan) : std::pair(range.low, range.high);
}

std::pair<float, float> expand(const py::buffer& left, const py::buffer& core, const py::buffer& right,
                               const py::buffer& out, bool accumulate, int threads) {
    const Held<float> l(left, "left"), c(core, "core"), r(right, "right"), o(out, "out", true);
    vea::cpu::Expand p;
    if (c.info.ndim != 2 || o.info.ndim != 2) refuse("core and out must have two dimensions");
    p.rows = c.info.shape[0], p.cols = c.info.shape[1];
    p.height = o.info.shape[0], p.width = o.info.shape[1];
    require_positive({p.rows, p.cols, p.height, p.width});
    l.require({p.rows, p.height});
    r.require({p.cols, p.width});
    p.left = l.data(), p.core = c.data(), p.right = r.data(), p.out = o.data();
    p.accumulate = accumulate;
    py::gil_scoped_release release;
    return ends(vea::cpu::expand(p, threads));
}

// The pixels of a Pillow picture in a mode of four bytes per pixel, as its `__arrow_c_array__` hands them over.
const uint8_t* pixels_of(const py::capsule& capsule, int64_t count) {
    const auto* array = capsule.get_pointer<ArrowArray>();
    const bool expected = array->release != nullptr && array->length == count && array->offset == 0 &&
                          array->n_children == 1 && array->children[0]->length == 4 * count &&
                          array->children[0]->offset == 0 && array->children[0]->n_buffers == 2;
    if (!expected) refuse("the picture is not made of ", count, " pixels of four bytes");
    return static_cast<const uint8_t*>(array->children[0]->buffers[1]);
}

std::pair<float, float> highlight(const py::object& picture, const py::buffer& map, float alpha,
                                  const py::buffer& result, int threads) {
    const Held<float> m(map, "map");
    const Held<uint8_t> out(result, "result", true);
    if (m.info.ndim != 2 || out.info.ndim != 3) refuse("map must have two dimensions, result three");
    vea::cpu::Highlight p;
    p.height = m.info.shape[0], p.width = m.info.shape[1], p.channels = out.info.shape[2];
    require_positive({p.height, p.width});
    if (p.channels != 1 && p.channels != 3 && p.channels != 4) refuse("result has ", p.channels, " channels");
    out.require({p.height, p.width, p.channels});
    p.map = m.data(), p.alpha = alpha, p.result = out.data();
    if (PyCapsule_IsValid(picture.ptr(), "arrow_array")) {
        if (p.channels != 4) refuse("result must have 4 channels, as Pillow's memory has");
        p.picture = pixels_of(py::reinterpret_borrow<py::capsule>(picture), p.height * p.width);
        py::gil_scoped_release release;
        return ends(vea::cpu::highlight(p, threads));
    }
    const Held<uint8_t> in(picture.cast<py::buffer>(), "picture");
    in.require({p.height, p.width, p.channels});
    p.picture = in.data();
    py::gil_scoped_release release;
    return ends(vea::cpu::highlight(p, threads));
}

// Memory for a map or a picture: numpy takes it through the buffer protocol, Pillow through Arrow.
struct Block {
    vea::Pages pages;
    int64_t size;

    explicit Block(int64_t size) : size(size) {
        if (size < 1) refuse("size = ", size, "; give at least one byte");
        pages = vea::allocate_pages(size_t(size));
    }
};

// What is handed over outlives this module's objects, so each export owns a share of the memory.
struct Export {
    vea::Pages pages;
    const void* buffers[2];
};

void release_schema(ArrowSchema* schema) { schema->release = nullptr; }

void release_array(ArrowArray* array) {
    delete static_cast<Export*>(array->private_data);
    array->release = nullptr;
}

template <class Arrow>
py::capsule capsule_of(Arrow* arrow, const char* name) {
    return py::capsule(arrow, name, [](PyObject* self) {
        auto* held = static_cast<Arrow*>(PyCapsule_GetPointer(self, PyCapsule_GetName(self)));
        if (held->release) held->release(held);
        delete held;
    });
}

// One unsigned 32-bit number per pixel.
py::tuple arrow_of(const Block& block, const py::object&) {
    auto* exported = new Export{block.pages, {nullptr, block.pages.get()}};
    auto* schema = new ArrowSchema{"I", "", nullptr, 0, 0, nullptr, nullptr, release_schema, nullptr};
    auto* array = new ArrowArray{block.size / 4, 0, 0, 2, 0, exported->buffers, nullptr, nullptr, release_array, exported};
    return py::make_tuple(capsule_of(schema, "arrow_schema"), capsule_of(array, "arrow_array"));
}

}  // namespace

void vea::bind_evidence(py::module_& m) {
    m.def("expand_cpu", expand);
    m.def("highlight_cpu", highlight);
    py::class_<Block>(m, "Block", py::buffer_protocol())
        .def(py::init<int64_t>())
        .def("__arrow_c_array__", arrow_of, py::arg("requested_schema") = py::none())
        .def_buffer([](Block& block) { return py::buffer_info(block.pages.get(), py::ssize_t(block.size)); });
}
