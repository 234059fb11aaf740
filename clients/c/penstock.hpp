// Streams the steps of a C++ solver into a training campaign: the C client with owners and
// exceptions. Solvers include it and link penstock.c and libzmq; C++17.
//
//     penstock::Link link;
//     link.run([&] {
//         for (auto &sim : link.simulations())
//             for (...) {
//                 sim.send(t, {{"temperature", u}}); // std::vector, std::array, pointer and size
//                 if (sim.cancelled()) break;
//             }
//     });
//
// An exception out of `run` is told to the campaign and ends every rank of a parallel program: the
// others would wait for this one in vain. Without `run` call link.close() at the end; a link that
// is destroyed by an exception then does the same, and cannot know its text.
#ifndef PENSTOCK_HPP
#define PENSTOCK_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "penstock.h"

namespace penstock {

// Base of everything that this client throws; what() is the sentence.
class Error : public std::runtime_error {
public:
    Error(penstock_code kind, const std::string &what) : std::runtime_error(what), code(kind) {}
    const penstock_code code;
};

// A field, shape, layout or call other than the campaign's.
struct LayoutError : Error { using Error::Error; };
// A shard or the coordinator stayed silent beyond every deadline.
struct ConnectionLost : Error { using Error::Error; };

inline void throw_failure(penstock_code code, const penstock_link *link) {
    if (code == PENSTOCK_OK) return;
    const std::string why = penstock_error(link);
    if (code == PENSTOCK_LAYOUT_ERROR) throw LayoutError(code, why);
    if (code == PENSTOCK_CONNECTION_LOST) throw ConnectionLost(code, why);
    throw Error(code, why);
}

template <class T> constexpr bool is_signed_integer(std::size_t n_bytes) {
    return std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) == n_bytes;
}

template <class T> constexpr penstock_dtype dtype_of() {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> ||
                      is_signed_integer<T>(4) || is_signed_integer<T>(8) ||
                      std::is_same_v<T, std::uint8_t>,
                  "The wire carries float, double, 32 and 64 bit signed integers and bytes.");
    if (std::is_same_v<T, float>) return PENSTOCK_F32;
    if (std::is_same_v<T, double>) return PENSTOCK_F64;
    if (is_signed_integer<T>(4)) return PENSTOCK_I32;
    return is_signed_integer<T>(8) ? PENSTOCK_I64 : PENSTOCK_U8;
}

// This rank's part of a field for one call: what its layout owns, side by side, in C order. Keeps
// a pointer to the values, which have to live until the call.
class Array {
public:
    template <class T> Array(const char *name, const T *values, std::size_t n)
        : c_{name, values, n, dtype_of<std::remove_cv_t<T>>()} {}
    // Anything with data() and size(): std::vector, std::array, a span.
    template <class Values, class = decltype(std::declval<const Values &>().data())>
    Array(const char *name, const Values &values) : Array(name, values.data(), values.size()) {}
    Array(const char *name, const double &value) : Array(name, &value, 1) {}

private:
    penstock_array c_;
};
static_assert(sizeof(Array) == sizeof(penstock_array) && std::is_standard_layout_v<Array>,
              "A list of Arrays has to be an array for C.");

using Arrays = std::initializer_list<Array>;

// A running simulation; belongs to its link, until the link gives the next one.
class Simulation {
public:
    std::int64_t id() const { return penstock_id(c_); }
    std::int64_t seed() const { return penstock_seed(c_); } // the same in all attempts
    std::int64_t attempt() const { return penstock_attempt(c_); } // 1 for the first
    penstock_role role() const { return penstock_role_of(c_); }

    // A parameter by name; throws LayoutError, which names those that exist.
    double parameter(const char *name) const {
        double value = 0;
        throw_failure(penstock_parameter(c_, name, &value), link_);
        return value;
    }

    double parameter(const std::string &name, double otherwise) const {
        const auto all = parameters();
        const auto found = all.find(name);
        return found == all.end() ? otherwise : found->second;
    }

    std::map<std::string, double> parameters() const {
        std::map<std::string, double> all;
        for (std::size_t i = 0; i < penstock_n_parameters(c_); i++) {
            const char *name = penstock_parameter_name(c_, i);
            all[name] = parameter(name);
        }
        return all;
    }

    // Whether the shards still need the step, counted from 0, after the campaign's `every`. All
    // steps are to be computed and sent in any case.
    bool wanted(std::uint32_t step) const { return penstock_wanted(c_, step) != 0; }

    // This rank's part of all input fields, before the first step.
    void inputs(Arrays fields) {
        throw_failure(penstock_inputs(c_, arrays(fields), fields.size()), link_);
    }
    void inputs(const std::vector<Array> &fields) {
        throw_failure(penstock_inputs(c_, arrays(fields), fields.size()), link_);
    }

    // Memory for n values of a field of the next step, for a solver that computes a large field
    // straight into it and sends it from there, without a copy: penstock_empty, which says how long
    // it is whose.
    template <class T> T *empty(const char *field, std::size_t n) {
        void *values = nullptr;
        throw_failure(penstock_empty(c_, field, n, dtype_of<T>(), &values), link_);
        return static_cast<T *>(values);
    }

    // This rank's part of all fields of one step; waits while the server has no room.
    void send(double t, Arrays fields) {
        throw_failure(penstock_send(c_, t, arrays(fields), fields.size()), link_);
    }
    void send(double t, const std::vector<Array> &fields) {
        throw_failure(penstock_send(c_, t, arrays(fields), fields.size()), link_);
    }
    // The one step of a steady problem.
    void send(Arrays fields) { send(PENSTOCK_NO_TIME, fields); }
    void send(const std::vector<Array> &fields) { send(PENSTOCK_NO_TIME, fields); }

    // Whether the server wants no more of it: leave the loop. Collective.
    bool cancelled() { return penstock_cancelled(c_) != 0; }
    // The simulation is complete; the next one, and close, say so too.
    void end() { throw_failure(penstock_end(c_), link_); }
    // The solver gives it up; the reason stands in the report. The link goes on.
    void fail(const std::string &reason) {
        throw_failure(penstock_fail(c_, reason.c_str()), link_);
    }

private:
    friend class Link;
    Simulation() = default;

    template <class List> static const penstock_array *arrays(const List &fields) {
        return reinterpret_cast<const penstock_array *>(std::data(fields));
    }

    penstock_simulation *c_ = nullptr;
    const penstock_link *link_ = nullptr;
};

using Parameters = std::map<std::string, double>;
using Lengths = std::vector<std::int64_t>;

// The connection to the campaign; one on every MPI rank.
class Link {
public:
    // Collective. alone: what a program without PENSTOCK_COORDINATOR simulates.
    explicit Link(const Parameters &alone = {}) : Link(nullptr, alone) {}
    explicit Link(const penstock_ranks &ranks, const Parameters &alone = {})
        : Link(&ranks, alone) {}

    Link(const Link &) = delete;
    Link &operator=(const Link &) = delete;

    ~Link() {
        if (std::uncaught_exceptions() <= exceptions_) return;
        try {
            const std::string last = penstock_error(c_.get());
            abandon("an exception; the link's last error: " + last);
        } catch (const std::bad_alloc &) {
            penstock_abandon(c_.get(), "an exception");
        }
    }

    // Calls the body and closes the link.
    template <class Body> void run(Body &&body) {
        try {
            std::forward<Body>(body)();
            close();
        } catch (const std::exception &error) {
            abandon(error.what());
            throw;
        } catch (...) {
            abandon("an exception that is no std::exception");
            throw;
        }
    }

    // Says which box of a field this rank owns: start and extent for each axis. Not needed on one
    // rank.
    void layout(const char *field, const Lengths &global_shape, const Lengths &start,
                const Lengths &extent) {
        if (start.size() != global_shape.size() || extent.size() != global_shape.size())
            throw LayoutError(PENSTOCK_LAYOUT_ERROR, std::string("The layout of '") + field +
                              "' needs a start and an extent for each axis of its global shape.");
        throw_failure(penstock_layout_box(c_.get(), field, static_cast<int>(global_shape.size()),
                                          global_shape.data(), start.data(), extent.data()),
                      c_.get());
    }

    // The same for flat indices into the global field, in C order of its shape.
    void layout(const char *field, const Lengths &global_shape, const Lengths &indices) {
        const int n_axes = static_cast<int>(global_shape.size());
        throw_failure(penstock_layout_indices(c_.get(), field, n_axes, global_shape.data(),
                                              indices.data(), indices.size()),
                      c_.get());
    }

    // The next simulation, or nullptr if there are no more; ends the one before. Collective.
    Simulation *next() {
        const penstock_code code = penstock_next(c_.get(), &current_.c_);
        if (code == PENSTOCK_OVER) return nullptr;
        throw_failure(code, c_.get());
        current_.link_ = c_.get();
        return &current_;
    }

    class Simulations;
    // All simulations, for a loop.
    Simulations simulations();

    // Ends the running simulation, waits for acknowledgements, says goodbye. May be called twice.
    void close() { throw_failure(penstock_close(c_.get()), c_.get()); }

    // Tells the campaign the reason and ends every rank of a parallel program.
    void abandon(const std::string &reason) { penstock_abandon(c_.get(), reason.c_str()); }

private:
    Link(const penstock_ranks *ranks, const Parameters &alone) {
        std::vector<penstock_value> values;
        for (const auto &[name, value] : alone) values.push_back({name.c_str(), value});
        penstock_link *made = nullptr;
        const penstock_code code = penstock_connect(&made, ranks, values.data(), values.size());
        c_.reset(made);
        throw_failure(code, made);
    }

    struct Free { void operator()(penstock_link *link) const { penstock_free(link); } };

    std::unique_ptr<penstock_link, Free> c_;
    Simulation current_;
    int exceptions_ = std::uncaught_exceptions();
};

class Link::Simulations {
public:
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Simulation;
        using difference_type = std::ptrdiff_t;
        using pointer = Simulation *;
        using reference = Simulation &;

        Simulation &operator*() const { return *sim_; }
        Simulation *operator->() const { return sim_; }
        iterator &operator++() {
            sim_ = link_->next();
            return *this;
        }
        bool operator!=(const iterator &other) const { return sim_ != other.sim_; }
        bool operator==(const iterator &other) const { return sim_ == other.sim_; }

    private:
        friend class Simulations;
        iterator(Link *link, Simulation *sim) : link_(link), sim_(sim) {}
        Link *link_;
        Simulation *sim_;
    };

    iterator begin() { return {link_, link_->next()}; }
    iterator end() { return {link_, nullptr}; }

private:
    friend class Link;
    explicit Simulations(Link *link) : link_(link) {}
    Link *link_;
};

inline Link::Simulations Link::simulations() { return Simulations(this); }

} // namespace penstock

#endif
