/* The conformance program in C; the kit runs it, see ../README.md for what it has to do.
 *
 * With -DCONFORMANCE_MPI it runs on any number of MPI ranks, without it on one and without MPI.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "penstock.h"
#ifdef CONFORMANCE_MPI
#include "penstock_mpi.h"
#endif

static int rank = 0, size = 1;

typedef struct work {
    const char *fields; /* letters */
    int64_t u_first, u_rows, x_first, x_rows;
    int64_t mine[5]; /* indices of v and w */
    size_t n_mine;
    double u[4 * 6], v[5], w[5];
} work;

static int has(const work *work, char letter) { return strchr(work->fields, letter) != NULL; }

static double given(penstock_simulation *sim, const char *name, double otherwise) {
    double value = otherwise;
    penstock_parameter(sim, name, &value);
    return value;
}

static penstock_code lay_out_u(penstock_link *link, work *work) {
    const int64_t shape[] = {4, 6}, start[] = {4 * rank / size, 0};
    const int64_t extent[] = {4 * (rank + 1) / size - start[0], 6};
    work->u_first = start[0], work->u_rows = extent[0];
    return has(work, 'u') ? penstock_layout_box(link, "u", 2, shape, start, extent) : PENSTOCK_OK;
}

static penstock_code lay_out(penstock_link *link, work *work) {
    const int64_t x_shape[] = {64, 256}, v_shape[] = {5};
    const int64_t x_start[] = {64 * rank / size, 0};
    const int64_t x_extent[] = {64 * (rank + 1) / size - x_start[0], 256};
    penstock_code code = lay_out_u(link, work);
    int64_t i;
    for (i = 4; i >= 0; i--)
        if (rank == (i % 4 ? 0 : size - 1)) work->mine[work->n_mine++] = i;
    work->x_first = x_start[0], work->x_rows = x_extent[0];
    if (!code && has(work, 'v'))
        code = penstock_layout_indices(link, "v", 1, v_shape, work->mine, work->n_mine);
    if (!code && has(work, 'w'))
        code = penstock_layout_indices(link, "w", 1, v_shape, work->mine, work->n_mine);
    if (!code && has(work, 'x')) code = penstock_layout_box(link, "x", 2, x_shape, x_start, x_extent);
    return code;
}

static penstock_code send_inputs(penstock_simulation *sim, work *work) {
    penstock_array fields[1];
    size_t i;
    for (i = 0; i < work->n_mine; i++)
        work->v[i] = (double)(1 + penstock_seed(sim) % 64) * 4.0 / (double)(1 << work->mine[i]);
    fields[0] = penstock_f64("v", work->v, work->n_mine);
    return penstock_inputs(sim, fields, 1);
}

static penstock_code send_step(penstock_simulation *sim, work *work, int k) {
    const double a = given(sim, "a", 0), b = given(sim, "b", 0);
    const double seed = (double)(penstock_seed(sim) % 64) / 64;
    penstock_array fields[3];
    penstock_code code;
    void *x = NULL;
    size_t n = 0, i;
    for (i = 0; i < (size_t)work->u_rows * 6; i++)
        work->u[i] = a + 1000.0 * k + (double)work->u_first * 6 + (double)i + seed;
    for (i = 0; i < work->n_mine; i++)
        work->w[i] = (k % 2 ? -b : b) / (double)(1 << work->mine[i]);
    if (has(work, 'w')) fields[n++] = penstock_f64("w", work->w, work->n_mine);
    fields[n++] = penstock_f64("u", work->u, (size_t)work->u_rows * 6);
    if (has(work, 'x')) {
        size_t n_x = (size_t)work->x_rows * 256;
        if ((code = penstock_empty(sim, "x", n_x, PENSTOCK_F64, &x)) != PENSTOCK_OK) return code;
        for (i = 0; i < n_x; i++)
            ((double *)x)[i] = k + (double)work->x_first * 256 + (double)i;
        fields[n++] = penstock_f64("x", x, n_x);
    }
    return penstock_send(sim, given(sim, "timed", 1) != 0 ? k / 100.0 : PENSTOCK_NO_TIME, fields, n);
}

static penstock_code simulate(penstock_link *link, penstock_simulation *sim, work *work) {
    const double pause_s = given(sim, "pause_s", 0);
    const struct timespec pause = {(time_t)pause_s, (long)(1e9 * (pause_s - (int)pause_s))};
    penstock_code code = has(work, 'v') ? send_inputs(sim, work) : PENSTOCK_OK;
    int k;
    for (k = 0; !code && k < (int)given(sim, "steps", 42); k++) {
        if (k == (int)given(sim, "fail_at", -1)) {
            char reason[64];
            snprintf(reason, sizeof reason, "asked to fail at step %d", k);
            return penstock_fail(sim, reason);
        }
        if (k == (int)given(sim, "lay_at", -1)) code = lay_out_u(link, work);
        if (!code) code = send_step(sim, work, k);
        nanosleep(&pause, NULL);
        if (!code && penstock_cancelled(sim)) break;
    }
    return code;
}

static penstock_code campaign(penstock_link *link, work *work) {
    penstock_simulation *sim;
    penstock_code code = lay_out(link, work);
    while (!code && !(code = penstock_next(link, &sim))) code = simulate(link, sim, work);
    return code == PENSTOCK_OVER ? penstock_close(link) : code;
}

int main(int argc, char **argv) {
    static work work;
    const penstock_value alone = {"steps", 3.0};
    penstock_link *link;
    penstock_code code;
    const penstock_ranks *ranks = NULL;
#ifdef CONFORMANCE_MPI
    MPI_Comm comm = MPI_COMM_WORLD;
    penstock_ranks mpi;
    MPI_Init(&argc, &argv);
    mpi = penstock_mpi_ranks(&comm);
    rank = mpi.rank, size = mpi.size;
    ranks = &mpi;
#endif
    work.fields = argc == 3 && !strcmp(argv[1], "--fields") ? argv[2] : "uvw";
    code = penstock_connect(&link, ranks, &alone, 1);
    if (!code) code = campaign(link, &work);
    if (code) {
        fprintf(stderr, "%s\n", penstock_error(link));
        if (link) penstock_abandon(link, penstock_error(link));
    }
    penstock_free(link);
#ifdef CONFORMANCE_MPI
    MPI_Finalize();
#endif
    return code ? 3 : 0;
}
