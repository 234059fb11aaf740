/* A client in C that sends one array as fast as it may; `stream VALUES STEPS`, for ingest.py. */
#include <stdio.h>
#include <stdlib.h>

#include "penstock.h"

int main(int argc, char **argv) {
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 0, i;
    unsigned steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0, step;
    float *u = malloc((n + 1) * sizeof *u);
    penstock_link *link = NULL;
    penstock_simulation *sim;
    penstock_code code = u ? penstock_connect(&link, NULL, NULL, 0) : PENSTOCK_SYSTEM_ERROR;
    for (i = 0; u && i < n; i++) u[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    while (!code && !(code = penstock_next(link, &sim)))
        for (step = 0; !code && step < steps; step++) {
            penstock_array fields[] = {penstock_f32("u", u, n)};
            code = penstock_send(sim, step, fields, 1);
        }
    if (code == PENSTOCK_OVER) code = penstock_close(link);
    if (code) fprintf(stderr, "%s\n", penstock_error(link));
    penstock_free(link);
    free(u);
    return code != PENSTOCK_OK;
}
