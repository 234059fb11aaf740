/* One simulation on one rank: checks what the solver sends and puts it on the way.
 *
 * The way of a step begins here: penstock_send picks this rank's share of each field in one copy,
 * waits for credit, and posts header and raw bytes to the shard of the step's segment.
 */

struct penstock_simulation {
    penstock_link *link;
    int64_t id, seed, attempt;
    uint32_t lease;
    penstock_role role;
    json *assignment; /* holds the names */
    penstock_value *parameters;
    size_t n_parameters;
    sender **senders; /* none without a server */
    size_t n_senders;
    int opened;
    const char *outcome; /* NULL: it runs */
    char reason[1024];
    char cancelled[1024]; /* the reason, as soon as all ranks know */
    uint32_t steps;       /* sent, after `every` */
    int64_t calls;
    int timed;
    double last_t;
};

static void simulation_free(penstock_simulation *sim) {
    if (!sim) return;
    json_free(sim->assignment);
    free(sim->parameters);
    free(sim->senders);
    free(sim);
}

static penstock_code simulation_shards(penstock_simulation *sim) {
    const json *shards = json_get(sim->assignment, "shards"), *shard;
    size_t n = json_length(shards);
    if (!(sim->senders = calloc(n + 1, sizeof *sim->senders))) return no_memory(&sim->link->why);
    for (shard = shards ? shards->child : NULL; shard; shard = shard->next) {
        sender *found = link_sender(sim->link, json_text(shard, ""), n);
        if (!found) return sim->link->why.code;
        sim->senders[sim->n_senders++] = found;
    }
    return PENSTOCK_OK;
}

/* Reads an assignment, which it takes over. */
static penstock_code simulation_read(penstock_simulation **made, penstock_link *link,
                                     json *assignment) {
    const json *parameters = json_get(assignment, "parameters"), *parameter;
    const char *role = json_text(json_get(assignment, "role"), "train");
    penstock_simulation *sim = calloc(1, sizeof *sim);
    penstock_code code;
    *made = sim;
    if (!sim) {
        json_free(assignment);
        return no_memory(&link->why);
    }
    sim->link = link, sim->assignment = assignment;
    sim->id = json_integer(json_get(assignment, "simulation"), 0);
    sim->lease = (uint32_t)json_integer(json_get(assignment, "lease"), 0);
    sim->seed = json_integer(json_get(assignment, "seed"), 0);
    sim->attempt = json_integer(json_get(assignment, "attempt"), 1);
    sim->role = !strcmp(role, "validation") ? PENSTOCK_VALIDATION
                : !strcmp(role, "test")     ? PENSTOCK_TEST
                                            : PENSTOCK_TRAIN;
    sim->parameters = calloc(json_length(parameters) + 1, sizeof *sim->parameters);
    code = sim->parameters ? simulation_shards(sim) : no_memory(&link->why);
    for (parameter = parameters ? parameters->child : NULL; code == PENSTOCK_OK && parameter;
         parameter = parameter->next) {
        sim->parameters[sim->n_parameters].name = parameter->key;
        sim->parameters[sim->n_parameters++].value = json_real(parameter, penstock_no_time());
    }
    if (code == PENSTOCK_OK) return code;
    simulation_free(sim);
    *made = NULL;
    return code;
}

static int simulation_wants(const penstock_simulation *sim, int64_t segment) {
    const json *wanted = json_get(sim->assignment, "wanted"), *range;
    if (!wanted || wanted->kind != JSON_ARRAY) return 1;
    for (range = wanted->child; range; range = range->next)
        if (json_integer(element(range, 0), 1) <= segment &&
            segment <= json_integer(element(range, 1), 0))
            return 1;
    return 0;
}

static const char *simulation_refusal(const penstock_simulation *sim) {
    size_t i;
    for (i = 0; i < sim->n_senders; i++) {
        const char *reason = sender_refusal(sim->senders[i], sim->lease);
        if (reason) return reason;
    }
    return NULL;
}

static header simulation_header(const penstock_simulation *sim, int kind, uint32_t step) {
    header h = link_header(sim->link, kind);
    h.simulation = (uint64_t)sim->id, h.lease = sim->lease, h.step = step;
    h.plan = sim->link->plan;
    return h;
}

/* OPEN says which segments go to the shard: those with s % geometry == step. */
static message *open_message(const penstock_simulation *sim, size_t position) {
    header h = simulation_header(sim, OPEN, (uint32_t)position);
    size_t i, n_bytes = sim->n_parameters * sizeof(double);
    message *m;
    h.geometry = (uint32_t)sim->n_senders, h.flags = (uint32_t)sim->role;
    if (!(m = message_new(&h, NULL, 0, &n_bytes, 1))) return NULL;
    for (i = 0; i < sim->n_parameters; i++)
        memcpy((double *)zmq_msg_data(&m->payloads[0]) + i, &sim->parameters[i].value,
               sizeof(double));
    return m;
}

/* Plans and OPEN, where they were not said yet. */
static penstock_code simulation_open(penstock_simulation *sim) {
    penstock_code code = PENSTOCK_OK;
    size_t i;
    if (sim->n_senders) code = link_tell_plan(sim->link, sim->senders, sim->n_senders);
    if (code != PENSTOCK_OK || !sim->n_senders || sim->opened) return code;
    sim->opened = 1;
    for (i = 0; code == PENSTOCK_OK && i < sim->n_senders; i++)
        code = sender_announce(sim->senders[i], ANNOUNCED_OPEN, sim->lease, open_message(sim, i));
    return code;
}

/* INPUT or PART, with this rank's share of each chosen field. chosen: by field number. */
static message *fields_message(const penstock_link *link, const header *h, field_role when,
                               const penstock_array *const *chosen) {
    entry entries[MAX_FIELDS];
    size_t sizes[MAX_FIELDS], i, n = 0;
    message *m;
    for (i = 0; i < link->n_fields; i++) {
        const field *f = &link->fields[i];
        if (f->spec.role != when) continue;
        sizes[n] = f->share.n_sent * dtype_bytes(f->spec.dtype);
        entries[n].field = (uint16_t)i, entries[n].dtype = (uint8_t)f->spec.dtype;
        entries[n].n_bytes = sizes[n], n++;
    }
    if (!(m = message_new(h, entries, n, sizes, n))) return NULL;
    for (i = n = 0; i < link->n_fields; i++) {
        const field *f = &link->fields[i];
        if (f->spec.role == when)
            share_pick(&f->share, &f->spec, chosen[i], zmq_msg_data(&m->payloads[n++]));
    }
    return m;
}

typedef struct place {
    uint32_t lease;
    int64_t ordinal; /* of the segment on its shard */
} place;

static int may_send(sender *s, const void *of) {
    const place *at = of;
    if (sender_refusal(s, at->lease)) return 1;
    return sender_granted(s, at->lease) > at->ordinal && sender_has_room(s);
}

/* Posts a step to the shard of its segment, as soon as that has room. */
static penstock_code simulation_post(penstock_simulation *sim, uint32_t step, double t,
                                     const penstock_array *const *chosen) {
    int64_t segment = step / sim->link->segment_steps;
    sender *to = sim->senders[(size_t)segment % sim->n_senders];
    header h;
    place at;
    penstock_code code = simulation_open(sim);
    if (code == PENSTOCK_OK) code = sender_flow(to);
    at.lease = sim->lease, at.ordinal = segment / (int64_t)sim->n_senders;
    if (code == PENSTOCK_OK && (sender_granted(to, sim->lease) <= at.ordinal || !sender_has_room(to)))
        code = sender_wait(to, may_send, &at, "room in the reservoir");
    if (code != PENSTOCK_OK || simulation_refusal(sim)) return code;
    h = simulation_header(sim, PART, step);
    h.t = t;
    return sender_post(to, fields_message(sim->link, &h, ROLE_STEP, chosen));
}

/* Notes the outcome, to be told with the next request. */
static penstock_code simulation_finished(penstock_simulation *sim) {
    penstock_link *link = sim->link;
    text *out = &link->outcome;
    char shape[256], sent[512] = "", one[400];
    size_t i;
    for (i = 0; i < link->n_fields; i++) {
        const spec *s = &link->fields[i].spec;
        if (s->role == ROLE_INPUT) continue;
        snprintf(one, sizeof one, "%.100s %s", s->name,
                 shape_text(s->shape, s->n_axes, shape, sizeof shape));
        list_name(sent, sizeof sent, one);
    }
    if (link->alone && link->ranks.rank == 0)
        fprintf(stderr,
                "penstock: no server, so %u steps of %s were checked and dropped (%.1f s).\n",
                (unsigned)sim->steps, *sent ? sent : "no field", now_s() - link->began_s);
    text_free(out);
    text_put(out, "{\"simulation\":%lld,\"lease\":%lld,\"outcome\":\"%s\",\"steps\":%lld,\"reason\":",
             (long long)sim->id, (long long)sim->lease, sim->outcome, (long long)sim->steps);
    json_quote(out, sim->reason);
    text_put(out, "}");
    return out->broken ? no_memory(&link->why) : PENSTOCK_OK;
}

static penstock_code simulation_last(penstock_simulation *sim, int kind, uint32_t step) {
    penstock_code code = PENSTOCK_OK;
    size_t i;
    for (i = 0; code == PENSTOCK_OK && i < sim->n_senders; i++) {
        header h = simulation_header(sim, kind, step);
        code = sender_post(sim->senders[i], message_new(&h, NULL, 0, NULL, 0));
    }
    return code;
}

static void simulation_outcome(penstock_simulation *sim, const char *outcome, const char *reason) {
    sim->outcome = outcome;
    snprintf(sim->reason, sizeof sim->reason, "%s", reason);
}

static penstock_code simulation_end(penstock_simulation *sim) {
    const char *refusal = simulation_refusal(sim);
    penstock_code code, noted;
    if (sim->outcome) return PENSTOCK_OK;
    if (!refusal && *sim->cancelled) refusal = sim->cancelled;
    simulation_outcome(sim, refusal ? "refused" : "ended", refusal ? refusal : "");
    code = simulation_open(sim);
    if (code == PENSTOCK_OK) /* after a refusal steps are missing */
        code = refusal ? simulation_last(sim, FAIL, 0) : simulation_last(sim, END, sim->steps);
    noted = simulation_finished(sim);
    return code == PENSTOCK_OK ? noted : code;
}

static penstock_code simulation_give_up(penstock_simulation *sim, const char *reason) {
    penstock_code code = PENSTOCK_OK, noted;
    if (sim->outcome) return PENSTOCK_OK;
    simulation_outcome(sim, "failed", reason);
    if (sim->opened) code = simulation_last(sim, FAIL, 0);
    noted = simulation_finished(sim);
    return code == PENSTOCK_OK ? noted : code;
}

/* The worker turns to the next simulation. */
static void simulation_release(penstock_simulation *sim) {
    size_t i;
    for (i = 0; i < sim->n_senders; i++) {
        sender_withdraw(sim->senders[i], ANNOUNCED_OPEN, sim->lease);
        sender_withdraw(sim->senders[i], ANNOUNCED_INPUT, sim->lease);
        sender_forget(sim->senders[i], sim->lease);
    }
    simulation_free(sim);
}
