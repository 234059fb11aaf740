/* A client in C that sends one array as fast as it may; `stream [--in-place] VALUES STEPS`, for
 * ingest.py. In place it is written once to each piece of the stream's memory, and not copied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock.h"

/* The array, in the memory of the stream; what a solver computes is not timed. */
static penstock_code in_place(penstock_simulation *sim, const float *u, size_t n, void **there) {
    penstock_code code = penstock_empty(sim, "u", n, PENSTOCK_F32, there);
    if (!code && ((float *)*there)[n - 1] != u[n - 1]) memcpy(*there, u, n * sizeof *u);
    return code;
}

int main(int argc, char **argv) {
    int copies = argc < 4 || strcmp(argv[1], "--in-place");
    size_t n = argc > 2 ? strtoul(argv[argc - 2], NULL, 10) : 0, i;
    unsigned steps = argc > 2 ? (unsigned)strtoul(argv[argc - 1], NULL, 10) : 0, step;
    float *u = malloc((n + 1) * sizeof *u);
    penstock_link *link = NULL;
    penstock_simulation *sim;
    penstock_code code = u ? penstock_connect(&link, NULL, NULL, 0) : PENSTOCK_SYSTEM_ERROR;
    for (i = 0; u && i < n; i++) u[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    while (!code && !(code = penstock_next(link, &sim)))
        for (step = 0; !code && step < steps; step++) {
            void *there = u;
            if (!copies) code = in_place(sim, u, n, &there);
            if (!code) {
                penstock_array fields[] = {penstock_f32("u", there, n)};
                code = penstock_send(sim, step, fields, 1);
            }
        }
    if (code == PENSTOCK_OVER) code = penstock_close(link);
    if (code) fprintf(stderr, "%s\n", penstock_error(link));
    penstock_free(link);
    free(u);
    return code != PENSTOCK_OK;
}
