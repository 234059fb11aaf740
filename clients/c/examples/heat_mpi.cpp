// The heat equation in two dimensions on MPI ranks, streamed from C++: second differences and
// implicit Euler, solved by conjugate gradients. A campaign starts it; alone it runs once.
//
//     du/dt = laplace(u)           in the unit square
//     u = T1, T2, T3, T4           on the left, right, bottom and top side, in K; T0 at t = 0
//
// The numbers are those of penstock_solvers.heat_numpy. Field temperature (n, n): [i, j] is at
// x = j/(n-1), y = i/(n-1); each rank owns rows.
#include <penstock.hpp>
#include <penstock_mpi.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

namespace {

using Vector = std::vector<double>;

// Rows of an n x n grid on one rank, with a row of the neighbour's on either side.
class Heat {
public:
    const int n, first, rows;

    Heat(MPI_Comm comm, int rank, int size, int n, double dt)
        : n(n), first(n * rank / size), rows(n * (rank + 1) / size - first), comm_(comm),
          below_(rank > 0 ? rank - 1 : MPI_PROC_NULL),
          above_(rank < size - 1 ? rank + 1 : MPI_PROC_NULL), weight_(dt * (n - 1) * (n - 1)),
          u_(values()), p_(values()), r_(values()), ap_(values()) {}

    // The own rows, without those of the neighbours.
    penstock::Array field(const char *name) const {
        return {name, &u_[at(0, 0)], static_cast<std::size_t>(rows) * static_cast<std::size_t>(n)};
    }

    // T0 inside, the sides on the boundary; a corner takes the mean of its two sides.
    void begin(const penstock::Simulation &sim) {
        const double inside = sim.parameter("T0"), left = sim.parameter("T1"),
                     right = sim.parameter("T2"), bottom = sim.parameter("T3"),
                     top = sim.parameter("T4");
        for (int i = 0; i < rows; i++) {
            const bool low = first + i == 0, high = first + i == n - 1;
            const double side = low ? bottom : top, corner = low || high ? 0.5 : 0.0;
            for (int j = 0; j < n; j++) u_[at(i, j)] = low || high ? side : inside;
            u_[at(i, 0)] = (1 - corner) * left + corner * side;
            u_[at(i, n - 1)] = (1 - corner) * right + corner * side;
        }
    }

    // One implicit Euler step: A u = u_old on the inner nodes, from u_old on.
    void advance() {
        exchange(u_);
        apply(u_, ap_);
        inner([&](std::size_t k) { r_[k] = u_[k] - ap_[k]; });
        p_ = r_;
        double rr = dot(r_, r_);
        const double goal = 1e-24 * dot(u_, u_);
        while (rr > goal) {
            exchange(p_);
            apply(p_, ap_);
            const double alpha = rr / dot(p_, ap_);
            inner([&](std::size_t k) { u_[k] += alpha * p_[k], r_[k] -= alpha * ap_[k]; });
            const double before = rr;
            rr = dot(r_, r_);
            inner([&](std::size_t k) { p_[k] = r_[k] + rr / before * p_[k]; });
        }
    }

private:
    Vector values() const {
        return Vector(static_cast<std::size_t>(rows + 2) * static_cast<std::size_t>(n), 0.0);
    }

    std::size_t at(int i, int j) const {
        return static_cast<std::size_t>(i + 1) * static_cast<std::size_t>(n) +
               static_cast<std::size_t>(j);
    }

    template <class Action> void inner(Action action) const {
        for (int i = std::max(0, 1 - first); i < std::min(rows, n - 1 - first); i++)
            for (int j = 1; j < n - 1; j++) action(at(i, j));
    }

    // v - dt laplace(v) on the inner nodes, 0 elsewhere.
    void apply(const Vector &v, Vector &av) const {
        const auto row = static_cast<std::size_t>(n);
        inner([&](std::size_t k) {
            const double around = v[k - 1] + v[k + 1] + v[k - row] + v[k + row];
            av[k] = (1 + 4 * weight_) * v[k] - weight_ * around;
        });
    }

    // The rows beside this rank's own, from its neighbours.
    void exchange(Vector &v) const {
        MPI_Sendrecv(&v[at(0, 0)], n, MPI_DOUBLE, below_, 0, &v[at(rows, 0)], n, MPI_DOUBLE,
                     above_, 0, comm_, MPI_STATUS_IGNORE);
        MPI_Sendrecv(&v[at(rows - 1, 0)], n, MPI_DOUBLE, above_, 1, &v[at(-1, 0)], n, MPI_DOUBLE,
                     below_, 1, comm_, MPI_STATUS_IGNORE);
    }

    double dot(const Vector &a, const Vector &b) const {
        double sum = 0;
        for (std::size_t k = at(0, 0); k < at(rows, 0); k++) sum += a[k] * b[k];
        MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, comm_);
        return sum;
    }

    MPI_Comm comm_;
    int below_, above_;
    double weight_;
    Vector u_, p_, r_, ap_; // p, r and A p are 0 on the boundary
};

// The number behind a name on the command line.
double option(int argc, char **argv, const std::string &name, double otherwise) {
    for (int i = 1; i + 1 < argc; i++)
        if (argv[i] == name) return std::stod(argv[i + 1]);
    return otherwise;
}

void run(int argc, char **argv, MPI_Comm comm) {
    const penstock_ranks ranks = penstock_mpi_ranks(&comm);
    const int n = static_cast<int>(option(argc, argv, "--n", 32));
    const int steps = static_cast<int>(option(argc, argv, "--steps", 100));
    const double dt = option(argc, argv, "--dt", 0.01);
    Heat heat(comm, ranks.rank, ranks.size, n, dt);

    penstock::Link link(ranks, {{"T0", 300}, {"T1", 350}, {"T2", 250}, {"T3", 400}, {"T4", 150}});
    link.layout("temperature", {n, n}, {heat.first, 0}, {heat.rows, n});
    link.run([&] {
        for (auto &sim : link.simulations()) {
            heat.begin(sim);
            for (int k = 1; k <= steps; k++) {
                heat.advance();
                sim.send(k * dt, {heat.field("temperature")});
                if (sim.cancelled()) break;
            }
        }
    });
}

} // namespace

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int failed = 0;
    try {
        run(argc, argv, MPI_COMM_WORLD);
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        failed = 1;
    }
    MPI_Finalize();
    return failed;
}
