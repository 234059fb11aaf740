/* Streams the steps of a solver into a training campaign; the whole interface of the C client.
 *
 * Solvers include it and link penstock.c and libzmq. MPI programs include penstock_mpi.h as well,
 * which is the only place that knows MPI. The protocol is clients/WIRE.md.
 *
 *     penstock_link *link;
 *     penstock_simulation *sim;
 *     if (penstock_connect(&link, NULL, NULL, 0) != PENSTOCK_OK) ...penstock_error(link)...
 *     while ((code = penstock_next(link, &sim)) == PENSTOCK_OK)
 *         for (...) {
 *             penstock_array step[] = {penstock_f64("temperature", u, n)};
 *             if (penstock_send(sim, t, step, 1) != PENSTOCK_OK) ...
 *         }
 *     code = penstock_close(link);
 *     penstock_free(link);
 *
 * Functions that can fail give a penstock_code; penstock_error(link) says the rest in a sentence.
 * Not for several threads at once. Strings and simulations belong to the link.
 */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct penstock_link penstock_link;
typedef struct penstock_simulation penstock_simulation;

typedef enum penstock_code {
    PENSTOCK_OK = 0,
    PENSTOCK_OVER = 1,            /* penstock_next: there are no more simulations */
    PENSTOCK_LAYOUT_ERROR = 2,    /* a field, shape, layout or call other than the campaign's */
    PENSTOCK_CONNECTION_LOST = 3, /* a shard or the coordinator stayed silent beyond every deadline,
                                     or does not accept the key */
    PENSTOCK_REFUSED = 4,         /* the coordinator says that a request makes no sense */
    PENSTOCK_SYSTEM_ERROR = 5     /* memory, libzmq or MPI failed */
} penstock_code;

typedef enum penstock_role {
    PENSTOCK_TRAIN = 0,
    PENSTOCK_VALIDATION = 1,
    PENSTOCK_TEST = 2
} penstock_role;

/* The codes of the wire. */
typedef enum penstock_dtype {
    PENSTOCK_F32 = 1,
    PENSTOCK_F64 = 2,
    PENSTOCK_I32 = 3,
    PENSTOCK_I64 = 4,
    PENSTOCK_U8 = 5
} penstock_dtype;

/* This process's part of a field: n_values of what its layout owns, contiguous, in C order. */
typedef struct penstock_array {
    const char *name;
    const void *values;
    size_t n_values;
    penstock_dtype dtype; /* of the solver's memory; converted to the campaign's */
} penstock_array;

typedef struct penstock_value {
    const char *name;
    double value;
} penstock_value;

/* The MPI ranks of the program, as the link needs them; penstock_mpi.h makes one.
 *
 * bcast and any are collective and give 0 for success. While they wait they are to call
 * penstock_pause(link, turn) with turn = 0, 1, 2, ...: a rank that spins would take the core of
 * one that computes, and the shards want to be heard. */
typedef struct penstock_ranks {
    int rank, size;
    int (*bcast)(penstock_link *link, void *context, void *bytes, size_t n_bytes); /* from rank 0 */
    int (*any)(penstock_link *link, void *context, int flag, int *anywhere); /* logical or */
    void (*abort)(void *context, int exit_code); /* ends every rank */
    void *context;
} penstock_ranks;

/* ---- the link ------------------------------------------------------------------------------- */

/* Connects this process to the campaign that started the program; collective.
 *
 * Reads PENSTOCK_COORDINATOR, PENSTOCK_WORKER and PENSTOCK_AGENT. Without a coordinator's address
 * the program runs alone: one simulation with the n_alone given parameters, what it sends is
 * checked and dropped. ranks: NULL for a serial program; copied.
 * *link is made in any case but want of memory (NULL), so that its error can be read. */
penstock_code penstock_connect(penstock_link **link, const penstock_ranks *ranks,
                               const penstock_value *alone, size_t n_alone);

/* Says which box of a field of n_axes axes this rank owns: start and extent for each axis. To be
 * called on every rank before the first simulation; not needed on one rank. */
penstock_code penstock_layout_box(penstock_link *link, const char *field, int n_axes,
                                  const int64_t *global_shape, const int64_t *start,
                                  const int64_t *extent);

/* The same for flat indices into the global field, in C order of its shape. */
penstock_code penstock_layout_indices(penstock_link *link, const char *field, int n_axes,
                                      const int64_t *global_shape, const int64_t *indices,
                                      size_t n_indices);

/* The next simulation, or PENSTOCK_OVER; ends the one before, whose pointer is then void.
 * Collective, and may wait as long as the campaign has nothing to do. */
penstock_code penstock_next(penstock_link *link, penstock_simulation **sim);

/* Ends the running simulation, waits for acknowledgements, says goodbye. May be called twice. */
penstock_code penstock_close(penstock_link *link);

/* For a program that cannot go on: names the reason to the campaign, which gives the simulation
 * to another worker, and ends every rank of a parallel program. */
void penstock_abandon(penstock_link *link, const char *reason);

/* Gives the memory back; a link that was not closed is dropped without a word. NULL is allowed. */
void penstock_free(penstock_link *link);

/* The last error as a sentence; never NULL. */
const char *penstock_error(const penstock_link *link);

/* Reads what the shards have answered, and sleeps a little, the longer the larger turn is; for
 * the callbacks of penstock_ranks. */
void penstock_pause(penstock_link *link, unsigned turn);

/* ---- a simulation --------------------------------------------------------------------------- */

int64_t penstock_id(const penstock_simulation *sim);
int64_t penstock_seed(const penstock_simulation *sim); /* the same in all attempts */
int64_t penstock_attempt(const penstock_simulation *sim); /* 1 for the first */
penstock_role penstock_role_of(const penstock_simulation *sim);

/* A parameter by name; PENSTOCK_LAYOUT_ERROR names those that exist. */
penstock_code penstock_parameter(penstock_simulation *sim, const char *name, double *value);
size_t penstock_n_parameters(const penstock_simulation *sim);
const char *penstock_parameter_name(const penstock_simulation *sim, size_t i); /* NULL: no such */

/* 1 if the shards still need the step (counted from 0, after the campaign's `every`). All steps
 * are to be computed and sent in any case; what is not needed is dropped by the client. */
int penstock_wanted(const penstock_simulation *sim, uint32_t step);

#define PENSTOCK_NO_TIME (penstock_no_time())
double penstock_no_time(void); /* for a steady problem */

/* This rank's part of all input fields, before the first step. */
penstock_code penstock_inputs(penstock_simulation *sim, const penstock_array *fields,
                              size_t n_fields);

/* Memory for this rank's part of a field of the next step, for a solver that computes a large field
 * straight into it: what it then gives to penstock_send is sent from there, without a copy, if the
 * campaign wants the field whole and in this dtype, and else copied as usual. Its content is
 * arbitrary. The same memory, unless another size is asked for, until it is given to penstock_send,
 * from its first value on; after that it may be read, not written, until the next of its field has
 * been sent or the simulation is over. */
penstock_code penstock_empty(penstock_simulation *sim, const char *field, size_t n_values,
                             penstock_dtype dtype, void **values);

/* This rank's part of all fields of one step; waits while the server has no room. */
penstock_code penstock_send(penstock_simulation *sim, double t, const penstock_array *fields,
                            size_t n_fields);

/* 1 if the server wants no more of it: leave the loop. Collective; all ranks hear it at the same
 * step, up to 16 of them after the first one could. After a failure of MPI it is 1 too, and the
 * next call tells. */
int penstock_cancelled(penstock_simulation *sim);

/* The simulation is complete; penstock_next and penstock_close say so too. */
penstock_code penstock_end(penstock_simulation *sim);

/* The solver gives this simulation up; the reason stands in the report. The link goes on. */
penstock_code penstock_fail(penstock_simulation *sim, const char *reason);

static inline penstock_array penstock_f64(const char *name, const double *values, size_t n) {
    penstock_array array;
    array.name = name, array.values = values, array.n_values = n, array.dtype = PENSTOCK_F64;
    return array;
}

static inline penstock_array penstock_f32(const char *name, const float *values, size_t n) {
    penstock_array array;
    array.name = name, array.values = values, array.n_values = n, array.dtype = PENSTOCK_F32;
    return array;
}

#ifdef __cplusplus
}
#endif
#endif
