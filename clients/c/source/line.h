/* The steps of one simulation on their way to one shard: alone, or several in one message.
 *
 * What a message costs, libzmq's thread and the receiver's, is many times the copy of a small step.
 * So steps that follow each other quickly share one, a bunch: never more than the campaign's
 * stream.bunch_bytes, never older than OLD_S when the solver calls in. There is no thread to send
 * them later: a solver that was quick and then computes for long keeps back its last few until its
 * next call, and sends step by step from then on, until such waits are less than LATE of its time.
 * What it waited for room or for a processor is not its doing and does not count. A large step that
 * the solver wrote into the stream's memory goes alone, as in a bunch it would have to be copied.
 */

#define QUICK_S 0.01 /* from one call to the next, of a solver for which it is worth it */
#define OLD_S 0.1
#define ALONE_BYTES ((size_t)1 << 18) /* from here on a copy costs more than a message */
#define LATE 0.05 /* share of the time for which steps may be kept back by a solver that computes */

typedef struct line {
    penstock_link *link;
    const spans *from; /* of the simulation; NULL: everything is copied */
    sender *to;
    message *bunch;   /* has room for at least one more step; NULL: nothing is kept back */
    uint32_t n, most; /* steps that it has, and that it takes */
    double bunch_s, kept_s; /* when it was begun, and kept_from_running_s() then */
    double put_s;           /* the last step */
    double since_s, late_s; /* late_s of the time since then, steps were kept back */
} line;

/* For how long the calling thread was ready and had no processor; 0 where nobody knows. */
static double kept_from_running_s(void) {
    unsigned long long ran_ns, waited_ns = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    if (!file) return 0.0;
    if (fscanf(file, "%llu %llu", &ran_ns, &waited_ns) != 2) waited_ns = 0;
    fclose(file);
    return 1e-9 * (double)waited_ns;
}

static void line_begin(line *l, penstock_link *link, const spans *from, sender *to) {
    memset(l, 0, sizeof *l);
    l->link = link, l->from = from, l->to = to;
    l->since_s = now_s(), l->put_s = l->since_s - QUICK_S;
}

/* Posts what is kept back. */
static penstock_code line_flush(line *l) {
    message *m = l->bunch;
    size_t i;
    if (!m) return PENSTOCK_OK;
    l->bunch = NULL;
    wire_set_step(m->frame, l->n);
    for (i = 0; i < m->n_payloads; i++)
        m->payloads[i].n_bytes = m->payloads[i].n_bytes / l->most * l->n;
    return sender_post(l->to, m);
}

/* Nobody wants what is kept back. */
static void line_drop(line *l) {
    message_free(l->bunch);
    l->bunch = NULL;
}

/* The solver calls in, after away_s: posts what is too old, and looks for answers.
 *
 * How long it was away counts if there were steps here. */
static penstock_code line_glance(line *l, double now, double away_s) {
    penstock_code code = PENSTOCK_OK;
    if (l->bunch && away_s > OLD_S) {
        double computed_s = away_s - (kept_from_running_s() - l->kept_s);
        if (computed_s > 0) l->late_s += computed_s;
    }
    if (l->bunch && now - l->bunch_s > OLD_S) code = line_flush(l);
    return code == PENSTOCK_OK ? sender_glance(l->to, now) : code;
}

/* The solver was kept for so long in this call, with nothing kept back. */
static void line_waited(line *l, double seconds) { l->put_s += seconds, l->since_s += seconds; }

/* Begins a bunch, if the next step is to share a message. */
static penstock_code line_gather(line *l, const shipment *of, const header *h, double now) {
    size_t most = l->link->bunch_bytes / (of->n_bytes + STEP_BYTES);
    if (most < 2) return PENSTOCK_OK;
    l->most = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
    if (!(l->bunch = shipment_bunch(of, h, l->most, &l->link->arena)))
        return no_memory(&l->link->why);
    l->n = 0, l->bunch_s = now, l->kept_s = kept_from_running_s();
    return PENSTOCK_OK;
}

/* Takes a step, after a glance; h is the header that it has if it goes alone. */
static penstock_code line_put(line *l, const header *h, const penstock_array *const *chosen,
                              double now) {
    shipment of = shipment_of(l->link, ROLE_STEP);
    int quick = now - l->put_s < QUICK_S && l->late_s <= LATE * (now - l->since_s);
    int gathers = quick && !l->bunch &&
                  !(of.n_bytes >= ALONE_BYTES && shipment_lies_in(&of, chosen, l->from));
    penstock_code code = gathers ? line_gather(l, &of, h, now) : PENSTOCK_OK;
    if (code != PENSTOCK_OK) return code;
    if (l->bunch) {
        shipment_pack(&of, chosen, l->bunch, l->n);
        wire_put_step(message_bytes(l->bunch, 0) + l->n * STEP_BYTES, h->step, h->t);
        l->n++;
        if (l->n == l->most || !quick) code = line_flush(l);
    } else {
        code = sender_post(l->to, shipment_message(&of, h, chosen, &l->link->arena, l->from));
    }
    l->put_s = now_s();
    return code;
}
