// The conformance program in C++; the kit runs it, see ../README.md for what it has to do.
#include <penstock.hpp>
#include <penstock_mpi.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using penstock::Array;
using penstock::Lengths;

namespace {

// A field whose ranks own strips of lines; `grid` counts its values.
struct Strips {
    std::int64_t n, width, first, lines;

    Strips(std::int64_t all, std::int64_t columns, int rank, int size)
        : n(all), width(columns), first(n * rank / size), lines(n * (rank + 1) / size - first) {}

    void lay_out(penstock::Link &link, const char *name) const {
        link.layout(name, {n, width}, {first, 0}, {lines, width});
    }

    std::size_t size() const { return static_cast<std::size_t>(lines * width); }

    void plus(double value, double *values) const {
        for (std::size_t i = 0; i < size(); i++)
            values[i] = value + static_cast<double>(first * width) + static_cast<double>(i);
    }
};

struct Program {
    std::string fields;
    Strips u, x;
    Lengths mine; // indices of v and w

    Program(std::string names, int rank, int size)
        : fields(std::move(names)), u(4, 6, rank, size), x(64, 256, rank, size) {
        for (std::int64_t i = 4; i >= 0; i--)
            if (rank == (i % 4 ? 0 : size - 1)) mine.push_back(i);
    }

    bool has(char name) const { return fields.find(name) != std::string::npos; }

    std::vector<double> halves(double first) const { // first * 2^-i
        std::vector<double> values;
        for (auto i : mine) values.push_back(std::ldexp(first, -static_cast<int>(i)));
        return values;
    }

    void solve(penstock::Link &link, penstock::Simulation &sim) const {
        const double a = sim.parameter("a", 0), b = sim.parameter("b", 0);
        const auto steps = static_cast<int>(sim.parameter("steps", 42));
        const auto fail_at = static_cast<int>(sim.parameter("fail_at", -1));
        const auto lay_at = static_cast<int>(sim.parameter("lay_at", -1));
        const bool timed = sim.parameter("timed", 1) != 0;
        const std::chrono::duration<double> pause(sim.parameter("pause_s", 0));
        const auto remainder = static_cast<double>(sim.seed() % 64);
        if (has('v')) sim.inputs({{"v", halves(4 * (1 + remainder))}});
        for (int k = 0; k < steps; k++) {
            if (k == fail_at) {
                sim.fail("asked to fail at step " + std::to_string(k));
                return;
            }
            if (k == lay_at) u.lay_out(link, "u");
            std::vector<double> us(u.size());
            u.plus(a + 1000.0 * k + remainder / 64, us.data());
            const auto ws = halves(k % 2 ? -b : b);
            std::vector<Array> step{{"u", us}};
            if (has('w')) step.emplace_back("w", ws);
            if (has('x')) {
                double *const xs = sim.empty<double>("x", x.size());
                x.plus(k, xs);
                step.emplace_back("x", xs, x.size());
            }
            if (timed) sim.send(k / 100.0, step);
            else sim.send(step);
            std::this_thread::sleep_for(pause);
            if (sim.cancelled()) return;
        }
    }

    void run(const penstock_ranks &ranks) const {
        penstock::Link link(ranks, {{"steps", 3}});
        link.run([&] {
            if (has('u')) u.lay_out(link, "u");
            if (has('v')) link.layout("v", {5}, mine);
            if (has('w')) link.layout("w", {5}, mine);
            if (has('x')) x.lay_out(link, "x");
            for (auto &sim : link.simulations()) solve(link, sim);
        });
    }
};

} // namespace

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm comm = MPI_COMM_WORLD;
    const penstock_ranks ranks = penstock_mpi_ranks(&comm);
    try {
        Program(argc > 2 ? argv[2] : "u", ranks.rank, ranks.size).run(ranks);
    } catch (const penstock::Error &error) {
        std::cerr << error.what() << std::endl;
        if (ranks.size > 1) MPI_Abort(comm, 3);
        MPI_Finalize();
        return 3;
    }
    MPI_Finalize();
    return 0;
}
