/* The C client of Penstock in one translation unit: compile this file and link libzmq.
 *
 *     cc -std=c99 -O2 -c penstock.c
 *
 * Its parts are the headers of source/, each one noun, read here in the order in which they
 * build on each other; below stand the public functions of the link.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create and its seals, where there are any */
#endif
#define _POSIX_C_SOURCE 200809L

#include "penstock.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "source/base.h"
#include "source/json.h"
#include "source/wire.h"
#include "source/layout.h"
#include "source/pages.h"
#include "source/arena.h"
#include "source/message.h"
#include "source/spans.h"
#include "source/keys.h"
#include "source/window.h"
#include "source/standing.h"
#include "source/route.h"
#include "source/sender.h"
#include "source/handshakes.h"
#include "source/asker.h"
#include "source/link.h"
#include "source/shipment.h"
#include "source/line.h"
#include "source/coordinator.h"
#include "source/simulation.h"
#include "source/sending.h"

#define BUNCHES_IN_WINDOW 16
#define ARENA_WINDOWS 4 /* so that steps larger than the window fit in as well */

const char *penstock_error(const penstock_link *link) {
    if (!link) return "The memory of this process is exhausted.";
    return *link->why.text ? link->why.text : "There was no error.";
}

/* A program that was started under mpirun and gives no ranks would be n workers of one name. */
static penstock_code refuse_hidden_ranks(problem *why) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    size_t i;
    for (i = 0; i < 2; i++) {
        const char *size = getenv(names[i]);
        if (size && atoi(size) > 1)
            return failed(why, PENSTOCK_LAYOUT_ERROR,
                          "This program was started on %s MPI ranks, and penstock_connect was given "
                          "none. Include penstock_mpi.h and give it penstock_mpi_ranks(&comm).",
                          size);
    }
    return PENSTOCK_OK;
}

static penstock_code take_ranks(penstock_link *link, const penstock_ranks *ranks) {
    link->ranks.size = 1;
    if (!ranks) return refuse_hidden_ranks(&link->why);
    link->ranks = *ranks;
    if (ranks->size < 1 || ranks->size > MAX_PARTS || ranks->rank < 0 ||
        ranks->rank >= ranks->size || (ranks->size > 1 && (!ranks->bcast || !ranks->any)))
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "Rank %d of %d was given; ranks go from 0 to size - 1, at most %d of them, "
                      "and more than one need bcast and any.", ranks->rank, ranks->size, MAX_PARTS);
    return PENSTOCK_OK;
}

static penstock_code take_names(penstock_link *link) {
    const char *address = getenv("PENSTOCK_COORDINATOR"), *worker = getenv("PENSTOCK_WORKER");
    char host[200] = "", name[256];
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "%s-%ld", host, (long)getpid());
    link->alone = !address || !*address;
    link->address = copy_text(address ? address : "");
    link->worker = copy_text(worker ? worker : name);
    link->asker.context = link->context;
    link->asker.address = link->address, link->asker.worker = link->worker;
    link->asker.keys = &link->keys;
    link->asker.waiting_since_s = -1.0;
    return link->address && link->worker && link->context ? PENSTOCK_OK : no_memory(&link->why);
}

static penstock_code take_alone(penstock_link *link, const penstock_value *alone, size_t n_alone) {
    size_t i;
    link->undeclared = 1;
    link->segment_steps = link->every = 1;
    if (!(link->alone_parameters = calloc(n_alone + 1, sizeof *alone)))
        return no_memory(&link->why);
    for (i = 0; i < n_alone; i++) {
        char *name = copy_text(alone[i].name);
        if (!name) return no_memory(&link->why);
        link->alone_parameters[i].name = name;
        link->alone_parameters[i].value = alone[i].value;
        link->n_alone++;
    }
    return PENSTOCK_OK;
}

static penstock_code take_welcome(penstock_link *link, json *welcome) {
    const json *stream = json_get(welcome, "stream"), *fields = json_get(welcome, "fields"), *one;
    const json *undeclared = json_get(stream, "undeclared");
    const json *lends = json_get(stream, "shared_memory");
    int64_t bunch_bytes = json_integer(json_get(stream, "bunch_bytes"), 0);
    link->book = welcome;
    link->campaign = (uint64_t)json_integer(json_get(welcome, "campaign"), 0);
    link->window_bytes = (size_t)json_integer(json_get(stream, "window_bytes"), 1 << 26);
    /* Several bunches must be under way to a shard, or it waits for the next one. */
    link->bunch_bytes = link->window_bytes / BUNCHES_IN_WINDOW;
    if (bunch_bytes < (int64_t)link->bunch_bytes)
        link->bunch_bytes = bunch_bytes > 0 ? (size_t)bunch_bytes : 0;
    if (lends && lends->kind == JSON_TRUE)
        arena_lend(&link->arena, ARENA_WINDOWS * link->window_bytes);
    link->segment_steps = json_integer(json_get(stream, "segment_steps"), 1);
    link->undeclared = undeclared && undeclared->kind == JSON_TRUE;
    link->every = 1;
    if (link->segment_steps < 1) link->segment_steps = 1;
    for (one = fields ? fields->child : NULL; one; one = one->next) {
        field *f = link_new_field(link, one->key);
        if (!f || spec_read(&f->spec, one->key, one, &link->why) != PENSTOCK_OK)
            return link->why.code;
        if (f->spec.every > link->every) link->every = f->spec.every;
    }
    return PENSTOCK_OK;
}

penstock_code penstock_connect(penstock_link **made, const penstock_ranks *ranks,
                               const penstock_value *alone, size_t n_alone) {
    penstock_link *link = calloc(1, sizeof *link);
    json *welcome = NULL;
    penstock_code code;
    *made = link;
    if (!link) return PENSTOCK_SYSTEM_ERROR;
    link->began_s = now_s();
    link->context = zmq_ctx_new();
    code = take_ranks(link, ranks);
    if (code == PENSTOCK_OK) code = take_names(link);
    if (code != PENSTOCK_OK) return code;
    if (link->alone) return take_alone(link, alone, n_alone);
    if ((code = keys_read(&link->keys, &link->why)) != PENSTOCK_OK) return code;
    code = coordinator_hello(link, &welcome);
    return code == PENSTOCK_OK ? take_welcome(link, welcome) : code;
}

penstock_code penstock_layout_box(penstock_link *link, const char *name, int n_axes,
                                  const int64_t *global_shape, const int64_t *start,
                                  const int64_t *extent) {
    field *f = NULL;
    penstock_code code = link_laid_out(link, name, n_axes, global_shape, &f);
    return code == PENSTOCK_OK ? share_box(&f->share, &f->spec, start, extent, &link->why) : code;
}

penstock_code penstock_layout_indices(penstock_link *link, const char *name, int n_axes,
                                      const int64_t *global_shape, const int64_t *indices,
                                      size_t n_indices) {
    field *f = NULL;
    penstock_code code = link_laid_out(link, name, n_axes, global_shape, &f);
    if (code != PENSTOCK_OK) return code;
    return share_indices(&f->share, &f->spec, indices, n_indices, &link->why);
}

static penstock_code end_current(penstock_link *link) {
    penstock_code code;
    if (!link->current) return PENSTOCK_OK;
    code = simulation_end(link->current);
    simulation_release(link->current);
    link->current = NULL;
    return code;
}

/* The one simulation of a program that runs alone. */
static penstock_code next_alone(penstock_link *link, penstock_simulation **sim) {
    static const char body[] = "{\"simulation\":0,\"lease\":1,\"shards\":[]}";
    json *assignment;
    penstock_code code;
    if (link->alone_given) return PENSTOCK_OVER;
    link->alone_given = 1;
    if (!(assignment = json_read(body, sizeof body - 1))) return no_memory(&link->why);
    if ((code = simulation_read(sim, link, assignment)) != PENSTOCK_OK) return code;
    free((*sim)->parameters);
    (*sim)->parameters = calloc(link->n_alone + 1, sizeof *(*sim)->parameters);
    if (!(*sim)->parameters) {
        simulation_free(*sim);
        *sim = NULL;
        return no_memory(&link->why);
    }
    memcpy((*sim)->parameters, link->alone_parameters,
           link->n_alone * sizeof *link->alone_parameters);
    (*sim)->n_parameters = link->n_alone;
    return PENSTOCK_OK;
}

penstock_code penstock_next(penstock_link *link, penstock_simulation **sim) {
    json *assignment = NULL;
    penstock_code code;
    *sim = NULL;
    if (link->closed)
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR, "The link is closed.");
    code = end_current(link);
    if (code == PENSTOCK_OK && link->alone) code = next_alone(link, sim);
    else if (code == PENSTOCK_OK && (code = coordinator_next(link, &assignment)) == PENSTOCK_OK)
        code = simulation_read(sim, link, assignment);
    link->current = *sim;
    return code;
}

static void shut(penstock_link *link) {
    size_t i;
    link->closed = 1;
    for (i = 0; i < link->n_senders; i++) sender_close(link->senders[i]);
    asker_close(&link->asker);
    while (link->context && zmq_ctx_term(link->context) && zmq_errno() == EINTR) /* a signal */
        ;
    link->context = NULL; /* nobody reads what was unacknowledged any more */
    for (i = 0; i < link->n_senders; i++) sender_free(link->senders[i]);
    link->n_senders = 0;
    arena_close(&link->arena);
}

penstock_code penstock_close(penstock_link *link) {
    penstock_code code;
    size_t i;
    if (link->closed) return PENSTOCK_OK;
    code = end_current(link);
    for (i = 0; code == PENSTOCK_OK && i < link->n_senders; i++)
        code = sender_drain(link->senders[i]);
    if (code == PENSTOCK_OK && !link->alone) code = coordinator_leave(link);
    shut(link);
    return code;
}

void penstock_abandon(penstock_link *link, const char *reason) {
    problem first = link->why;
    char said[sizeof first.text];
    penstock_code code = PENSTOCK_OK;
    if (link->closed) return;
    snprintf(said, sizeof said, "%s", reason ? reason : "no reason given");
    if (link->current) code = simulation_give_up(link->current, said);
    if (code == PENSTOCK_OK && !link->alone) code = coordinator_fail(link);
    if (code != PENSTOCK_OK)
        fprintf(stderr, "penstock: the failure could not be reported: %s\n", link->why.text);
    link->why = first; /* the first error is the one to be seen */
    if (link->current) simulation_release(link->current);
    link->current = NULL;
    shut(link);
    if (link->ranks.size > 1 && link->ranks.abort) {
        fprintf(stderr, "penstock: rank %d ends the program: %s\n", link->ranks.rank, said);
        link->ranks.abort(link->ranks.context, 1); /* the others wait for this rank in vain */
    }
}

void penstock_free(penstock_link *link) {
    size_t i;
    if (!link) return;
    if (link->current) simulation_release(link->current);
    if (!link->closed) shut(link);
    for (i = 0; i < link->n_fields; i++) {
        spec_free(&link->fields[i].spec);
        share_free(&link->fields[i].share);
    }
    for (i = 0; i < link->n_alone; i++) free((char *)link->alone_parameters[i].name);
    free(link->alone_parameters);
    free(link->fields);
    free(link->senders);
    json_free(link->book);
    text_free(&link->outcome);
    free(link->address);
    free(link->keys.path);
    free(link->worker);
    free(link);
}
