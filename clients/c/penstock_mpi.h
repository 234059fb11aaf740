/* The ranks of an MPI communicator for penstock_connect; included by MPI programs alone.
 *
 *     penstock_ranks ranks = penstock_mpi_ranks(&comm);   // comm outlives the link
 *
 * The client itself knows nothing of MPI: this header is compiled with the user's own mpi.h.
 */
#ifndef PENSTOCK_MPI_H
#define PENSTOCK_MPI_H

#include <limits.h>
#include <mpi.h>

#include "penstock.h"

static inline int penstock_mpi_wait(penstock_link *link, MPI_Request *request) {
    int done = 0;
    unsigned turn;
    for (turn = 0;; turn++) {
        int code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS || done) return code;
        penstock_pause(link, turn);
    }
}

static inline int penstock_mpi_bcast(penstock_link *link, void *context, void *bytes, size_t n) {
    MPI_Request request;
    int code;
    if (n > INT_MAX) return MPI_ERR_COUNT;
    code = MPI_Ibcast(bytes, (int)n, MPI_BYTE, 0, *(MPI_Comm *)context, &request);
    return code == MPI_SUCCESS ? penstock_mpi_wait(link, &request) : code;
}

static inline int penstock_mpi_any(penstock_link *link, void *context, int flag, int *anywhere) {
    MPI_Request request;
    int code =
        MPI_Iallreduce(&flag, anywhere, 1, MPI_INT, MPI_LOR, *(MPI_Comm *)context, &request);
    return code == MPI_SUCCESS ? penstock_mpi_wait(link, &request) : code;
}

static inline void penstock_mpi_abort(void *context, int exit_code) {
    MPI_Abort(*(MPI_Comm *)context, exit_code);
}

static inline penstock_ranks penstock_mpi_ranks(MPI_Comm *comm) {
    penstock_ranks ranks;
    MPI_Comm_rank(*comm, &ranks.rank);
    MPI_Comm_size(*comm, &ranks.size);
    ranks.bcast = penstock_mpi_bcast;
    ranks.any = penstock_mpi_any;
    ranks.abort = penstock_mpi_abort;
    ranks.context = comm;
    return ranks;
}

#endif
