// Tests of penstock.hpp alone, without a server: `make check`. What goes over the wire is tested by
// tests/conformance.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <penstock.hpp>

namespace {

void expect(bool holds, const std::string &what) {
    if (holds) return;
    std::cerr << "It does not hold that " << what << "." << std::endl;
    std::exit(1);
}

// The text of the error of this kind that the action throws; ends the program if it throws none.
template <class Kind, class Action> std::string thrown(Action action, const std::string &what) {
    try {
        action();
    } catch (const Kind &error) {
        return error.what();
    }
    expect(false, what);
    return "";
}

bool has(const std::string &text, const std::string &part) {
    return text.find(part) != std::string::npos;
}

void a_link_alone_gives_one_simulation() {
    penstock::Link link({{"a", 2.5}});
    const std::vector<double> u(24, 1.0);
    const std::array<float, 3> f{1, 2, 3};
    int simulations = 0;
    link.layout("u", {4, 6}, {0, 0}, {4, 6});
    link.run([&] {
        for (auto &sim : link.simulations()) {
            simulations++;
            expect(sim.parameter("a") == 2.5 && sim.parameter("z", 7) == 7.0,
                   "a parameter has its value, or its default");
            const auto unknown = thrown<penstock::LayoutError>(
                [&] { (void)sim.parameter("z"); }, "an unknown parameter is an error");
            expect(has(unknown, "it has a."), "the error names the parameters");
            sim.send(0.1, {{"u", u}, {"f", f}, {"energy", 0.5}});
            double *const next = sim.empty<double>("u", 24);
            std::fill_n(next, 24, 2.0);
            sim.send(0.2, {{"u", next, 24}, {"f", f}, {"energy", 0.25}});
            const auto wrong = thrown<penstock::LayoutError>(
                [&] { sim.empty<double>("u", 23); }, "another size is an error");
            expect(has(wrong, "23 values"), "the error names it");
            const auto missing = thrown<penstock::LayoutError>(
                [&] { sim.send(0.3, {{"u", u}}); }, "a step without its fields is an error");
            expect(has(missing, "lacks the field 'f'"), "the error names the field");
            expect(!sim.cancelled(), "nobody cancels a program that runs alone");
        }
    });
    expect(simulations == 1, "there is one simulation");
    link.close(); // twice
    const auto closed = thrown<penstock::Error>([&] { link.next(); }, "a closed link gives nothing");
    expect(has(closed, "closed"), "and says so");
}

void a_layout_that_does_not_fit_is_thrown() {
    penstock::Link link;
    const auto axes = thrown<penstock::LayoutError>(
        [&] { link.layout("u", {4, 6}, {0}, {4, 6}); }, "a start that lacks an axis is an error");
    expect(has(axes, "'u' needs a start"), "the error names the field");
    const auto range = thrown<penstock::LayoutError>(
        [&] { link.layout("v", {5}, {0, 5}); }, "an index beyond the field is an error");
    expect(has(range, "index 5"), "the error names the index");
}

void an_exception_passes_through_run_and_closes_the_link() {
    penstock::Link link;
    const auto text = thrown<std::runtime_error>(
        [&] { link.run([] { throw std::runtime_error("diverged"); }); }, "run passes it on");
    expect(text == "diverged", "the exception is the body's own");
    thrown<penstock::Error>([&] { link.next(); }, "the link is closed after it");
}

void an_exception_may_destroy_a_link() {
    const auto text = thrown<std::runtime_error>(
        [] {
            penstock::Link link;
            penstock::Simulation *sim = link.next();
            sim->send({{"u", std::vector<double>(3, 0.0)}});
            throw std::runtime_error("out of luck");
        },
        "the exception goes on");
    expect(text == "out of luck", "unchanged");
}

} // namespace

int main() {
    a_link_alone_gives_one_simulation();
    a_layout_that_does_not_fit_is_thrown();
    an_exception_passes_through_run_and_closes_the_link();
    an_exception_may_destroy_a_link();
    std::cout << "ok" << std::endl;
}
