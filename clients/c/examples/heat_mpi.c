/* The heat equation on MPI ranks, streamed into a campaign: the problem of penstock_solvers.heat.
 *
 *     du/dt = alpha laplace(u)     in the unit square, t in (0, steps * dt]
 *     u = T1, T2, T3, T4           on the left, right, bottom and top side
 *     u = T0                       at t = 0
 *
 * Second differences and implicit Euler on n x n nodes, as in penstock_solvers/heat_numpy.py; each
 * rank has a strip of rows, and the conjugate gradients of each step start at the step before.
 *
 *     mpirun -n 2 ./heat_mpi --n 64 --steps 100 [--dt 0.01] [--alpha 1] [--T0 300 ... --T4 300]
 *
 * What belongs to Penstock: connect and layout in main, next in campaign, send and cancelled in
 * simulate, close or abandon at the end.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock.h"
#include "penstock_mpi.h"

#define TOLERANCE 1e-12 /* of the residual, relative to the right hand side */

typedef struct grid {
    int n, steps, first, rows; /* this rank has the rows first .. first + rows - 1 */
    double dt, weight;         /* dt alpha / h^2 */
    MPI_Comm comm;
    int below, above; /* neighbours, MPI_PROC_NULL at the ends */
} grid;

/* Arrays have a ghost row below and above: row i of this rank begins at (i + 1) * n. */
static double *rows_new(const grid *g) {
    return calloc((size_t)(g->rows + 2) * (size_t)g->n, sizeof(double));
}

static void exchange(const grid *g, double *u) {
    double *last = u + (size_t)g->rows * (size_t)g->n;
    MPI_Sendrecv(u + g->n, g->n, MPI_DOUBLE, g->below, 0, last + g->n, g->n, MPI_DOUBLE, g->above,
                 0, g->comm, MPI_STATUS_IGNORE);
    MPI_Sendrecv(last, g->n, MPI_DOUBLE, g->above, 1, u, g->n, MPI_DOUBLE, g->below, 1, g->comm,
                 MPI_STATUS_IGNORE);
}

static int inner(const grid *g, int i) { return g->first + i > 0 && g->first + i < g->n - 1; }

static double dot(const grid *g, const double *a, const double *b) {
    double sum = 0, total;
    int i, j;
    for (i = 0; i < g->rows; i++)
        for (j = 1; inner(g, i) && j < g->n - 1; j++)
            sum += a[(i + 1) * g->n + j] * b[(i + 1) * g->n + j];
    MPI_Allreduce(&sum, &total, 1, MPI_DOUBLE, MPI_SUM, g->comm);
    return total;
}

/* out = (1 - dt alpha laplace) u on inner nodes. */
static void apply(const grid *g, double *u, double *out) {
    int i, j;
    exchange(g, u);
    for (i = 0; i < g->rows; i++)
        for (j = 1; inner(g, i) && j < g->n - 1; j++) {
            const double *at = u + (i + 1) * g->n + j;
            out[(i + 1) * g->n + j] =
                at[0] + g->weight * (4 * at[0] - at[-1] - at[1] - at[-g->n] - at[g->n]);
        }
}

/* x += a y on inner nodes, or x = y + a x. */
static void add(const grid *g, double *x, double a, const double *y, int onto) {
    int i, j;
    for (i = 0; i < g->rows; i++)
        for (j = 1; inner(g, i) && j < g->n - 1; j++) {
            int k = (i + 1) * g->n + j;
            x[k] = onto ? x[k] + a * y[k] : y[k] + a * x[k];
        }
}

/* One implicit step by conjugate gradients, u with its boundary values in place; 0: it diverged.
 * work: three arrays whose boundary is zero: residual, direction, and its image. */
static int step(const grid *g, double *u, double *const work[3]) {
    double *r = work[0], *p = work[1], *image = work[2];
    double target = TOLERANCE * TOLERANCE * dot(g, u, u), old, norm, a;
    int k;
    apply(g, u, r);
    add(g, r, -1, u, 0); /* r = u - (1 - dt alpha laplace) u */
    memcpy(p, r, (size_t)(g->rows + 2) * (size_t)g->n * sizeof *p);
    norm = dot(g, r, r);
    for (k = 0; norm > target && k < 10 * g->n; k++) {
        apply(g, p, image);
        a = norm / dot(g, p, image);
        add(g, u, a, p, 1);
        add(g, r, -a, image, 1);
        old = norm, norm = dot(g, r, r);
        add(g, p, norm / old, r, 0);
    }
    return norm <= target;
}

/* T0 inside and T1..T4 on the sides; a corner takes the mean of its two. */
static void initial(const grid *g, const double *T, double *u) {
    int i, j;
    for (i = 0; i < g->rows; i++)
        for (j = 0; j < g->n; j++) {
            int row = g->first + i, sides = 0;
            double sum = 0;
            if (j == 0) sum += T[1], sides++;
            if (j == g->n - 1) sum += T[2], sides++;
            if (row == 0) sum += T[3], sides++;
            if (row == g->n - 1) sum += T[4], sides++;
            u[(i + 1) * g->n + j] = sides ? sum / sides : T[0];
        }
}

static const char *const names[] = {"T0", "T1", "T2", "T3", "T4"};

static penstock_code simulate(penstock_simulation *sim, const grid *g, double *u,
                              double *const work[3]) {
    penstock_code code = PENSTOCK_OK;
    double T[5];
    int k;
    for (k = 0; !code && k < 5; k++) code = penstock_parameter(sim, names[k], &T[k]);
    if (code) return code;
    initial(g, T, u);
    for (k = 1; !code && k <= g->steps; k++) {
        penstock_array fields[1];
        if (!step(g, u, work)) return penstock_fail(sim, "conjugate gradients did not converge");
        fields[0] = penstock_f64("temperature", u + g->n, (size_t)g->rows * (size_t)g->n);
        code = penstock_send(sim, k * g->dt, fields, 1);
        if (!code && penstock_cancelled(sim)) break;
    }
    return code;
}

static penstock_code campaign(penstock_link *link, const grid *g) {
    double *u = rows_new(g), *work[3];
    penstock_simulation *sim;
    penstock_code code;
    int k;
    for (k = 0; k < 3; k++) work[k] = rows_new(g);
    while (!(code = penstock_next(link, &sim))) {
        code = simulate(sim, g, u, work);
        if (code) break;
    }
    for (k = 0; k < 3; k++) free(work[k]);
    free(u);
    return code == PENSTOCK_OVER ? PENSTOCK_OK : code;
}

static double option(int argc, char **argv, const char *name, double otherwise) {
    int i;
    for (i = 1; i + 1 < argc; i++)
        if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name)) return atof(argv[i + 1]);
    return otherwise;
}

int main(int argc, char **argv) {
    MPI_Comm comm = MPI_COMM_WORLD;
    penstock_ranks ranks;
    penstock_link *link;
    penstock_value alone[5];
    penstock_code code;
    grid g;
    int i;
    MPI_Init(&argc, &argv);
    ranks = penstock_mpi_ranks(&comm);
    g.n = (int)option(argc, argv, "n", 32), g.steps = (int)option(argc, argv, "steps", 100);
    g.dt = option(argc, argv, "dt", 0.01);
    g.weight = g.dt * option(argc, argv, "alpha", 1.0) * (g.n - 1) * (g.n - 1);
    g.first = g.n * ranks.rank / ranks.size;
    g.rows = g.n * (ranks.rank + 1) / ranks.size - g.first;
    g.comm = comm;
    g.below = ranks.rank > 0 ? ranks.rank - 1 : MPI_PROC_NULL;
    g.above = ranks.rank < ranks.size - 1 ? ranks.rank + 1 : MPI_PROC_NULL;
    for (i = 0; i < 5; i++)
        alone[i].name = names[i], alone[i].value = option(argc, argv, names[i], 100.0 + 100.0 * i);

    code = penstock_connect(&link, &ranks, alone, 5);
    if (!code) {
        const int64_t shape[] = {g.n, g.n}, start[] = {g.first, 0}, extent[] = {g.rows, g.n};
        code = penstock_layout_box(link, "temperature", 2, shape, start, extent);
    }
    if (!code) code = campaign(link, &g);
    if (!code) code = penstock_close(link);
    if (code) {
        fprintf(stderr, "%s\n", penstock_error(link));
        if (link) penstock_abandon(link, penstock_error(link));
    }
    penstock_free(link);
    MPI_Finalize();
    return code ? 1 : 0;
}
