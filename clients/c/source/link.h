/* The connection of a solver to a campaign: its state, its fields, its senders and its plan. */

typedef struct field {
    spec spec;
    share share;
} field;

struct penstock_link {
    problem why;
    penstock_ranks ranks;
    void *context;
    keys keys;
    asker asker;
    char *address, *worker;
    int alone, closed;
    int undeclared;                     /* no campaign file names the fields */
    int learned_steps, learned_inputs;  /* the first of either has been sent */
    penstock_value *alone_parameters;
    size_t n_alone;
    int alone_given;
    double began_s;
    int64_t sequence; /* simulations that were asked for */
    text outcome;     /* of the simulation before, as JSON, not yet told; empty: none */
    uint64_t campaign;
    json *book; /* the welcome, for its shards */
    size_t window_bytes, bunch_bytes;
    arena arena;
    int64_t segment_steps, every;
    field *fields;
    size_t n_fields, field_capacity;
    sender **senders;
    size_t n_senders, sender_capacity;
    uint32_t plan;
    int plan_made; /* the present layout has a number */
    penstock_simulation *current;
};

static penstock_code simulation_end(penstock_simulation *sim);
static penstock_code simulation_flush(penstock_simulation *sim);
static int simulation_is_open(const penstock_simulation *sim);
static void simulation_release(penstock_simulation *sim);

static field *link_field(penstock_link *link, const char *name) {
    size_t i;
    for (i = 0; i < link->n_fields; i++)
        if (!strcmp(link->fields[i].spec.name, name)) return &link->fields[i];
    return NULL;
}

/* Room for one more field, zeroed; NULL after a failure. */
static field *link_new_field(penstock_link *link, const char *name) {
    field *f;
    if (link->n_fields == MAX_FIELDS) {
        failed(&link->why, PENSTOCK_LAYOUT_ERROR,
               "Field '%s' is one too many: a message has at most %d fields.", name, MAX_FIELDS);
        return NULL;
    }
    if (!grow((void **)&link->fields, &link->field_capacity, link->n_fields, sizeof *f)) {
        no_memory(&link->why);
        return NULL;
    }
    f = &link->fields[link->n_fields++];
    memset(f, 0, sizeof *f);
    return f;
}

/* The names of all fields, or of all parameters, for messages. */
static void list_name(char *out, size_t n, const char *name) {
    size_t used = strlen(out);
    if (used + 1 < n) snprintf(out + used, n - used, "%s%s", used ? ", " : "", name);
}

static penstock_code link_unknown_field(penstock_link *link, const char *name) {
    char known[512] = "";
    size_t i;
    for (i = 0; i < link->n_fields; i++)
        list_name(known, sizeof known, link->fields[i].spec.name);
    return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                  "The campaign declares no field '%s'; it has %s.", name, *known ? known : "none");
}

/* The field that a layout speaks of, if the global shape is the campaign's. */
static penstock_code link_laid_out(penstock_link *link, const char *name, int n_axes,
                                   const int64_t *shape, field **found) {
    char given[256], declared[256];
    field *f = link_field(link, name);
    if (n_axes < 0 || n_axes > MAX_AXES)
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "The layout of '%s' has %d axes; 0 to %d are possible.", name, n_axes,
                      MAX_AXES);
    if (!f && !link->undeclared) return link_unknown_field(link, name);
    if (!f) { /* its role shows when it is sent */
        if (!(f = link_new_field(link, name))) return link->why.code;
        if (spec_learn(&f->spec, name, n_axes, shape, ROLE_UNKNOWN, &link->why) != PENSTOCK_OK)
            return link->why.code;
    }
    if (n_axes != f->spec.n_axes || memcmp(shape, f->spec.shape, (size_t)n_axes * sizeof *shape))
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "The layout of '%s' has the global shape %s; the campaign declares %s. "
                      "Correct [fields.%s] or the solver's size.", name,
                      shape_text(shape, n_axes, given, sizeof given),
                      shape_text(f->spec.shape, f->spec.n_axes, declared, sizeof declared), name);
    if (link->current && !link->undeclared && simulation_is_open(link->current))
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "The layout of '%s' cannot change during simulation %lld. Say it between "
                      "simulations, or before anything of one is sent.",
                      name, (long long)penstock_id(link->current));
    link->plan_made = 0;
    *found = f; /* what is kept back leaves under the layout that it came in */
    return link->current ? simulation_flush(link->current) : PENSTOCK_OK;
}

/* A lone rank owns fields whole without saying so. */
static penstock_code link_complete_shares(penstock_link *link) {
    static const int64_t origin[MAX_AXES] = {0};
    size_t i;
    for (i = 0; i < link->n_fields; i++) {
        field *f = &link->fields[i];
        if (f->share.known) continue;
        if (link->ranks.size > 1)
            return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                          "Field '%s' has no layout and the program runs on %d ranks. Say on every "
                          "rank which part of it it owns, before the first simulation.",
                          f->spec.name, link->ranks.size);
        if (share_box(&f->share, &f->spec, origin, f->spec.shape, &link->why) != PENSTOCK_OK)
            return link->why.code;
    }
    return PENSTOCK_OK;
}

/* What all messages of this rank have in common. */
static header link_header(const penstock_link *link, int kind) {
    header h;
    memset(&h, 0, sizeof h);
    h.kind = kind, h.campaign = link->campaign, h.t = penstock_no_time();
    h.part = (uint16_t)link->ranks.rank, h.n_parts = (uint16_t)link->ranks.size;
    return h;
}

/* The connection to a shard, made on first use; NULL after a failure. */
static sender *link_sender(penstock_link *link, const char *shard, size_t n_shards) {
    const char *address =
        json_text(json_get(json_get(json_get(link->book, "shards"), shard), "address"), NULL);
    size_t i, ahead = link->window_bytes / (n_shards ? n_shards : 1);
    header identity = link_header(link, HELLO);
    for (i = 0; i < link->n_senders; i++)
        if (!strcmp(link->senders[i]->shard, shard)) return link->senders[i];
    if (!address) {
        failed(&link->why, PENSTOCK_REFUSED,
               "The coordinator assigned a simulation to shard %s, whose address it never gave.",
               shard);
        return NULL;
    }
    if (!grow((void **)&link->senders, &link->sender_capacity, link->n_senders, sizeof(sender *))) {
        no_memory(&link->why);
        return NULL;
    }
    link->senders[link->n_senders] = sender_open(link->context, shard, address, &identity,
                                                 ahead ? ahead : 1, &link->keys,
                                                 link->arena.memory ? &link->arena : NULL,
                                                 &link->why);
    return link->senders[link->n_senders] ? link->senders[link->n_senders++] : NULL;
}

/* The PLAN message: this rank's layout of all fields, in the campaign's order. */
static message *link_plan(penstock_link *link) {
    entry entries[MAX_FIELDS];
    size_t sizes[MAX_FIELDS], i;
    header h = link_header(link, PLAN);
    message *m;
    h.plan = link->plan;
    for (i = 0; i < link->n_fields; i++) {
        sizes[i] = link->fields[i].share.n_plan * sizeof(int64_t);
        entries[i].field = (uint16_t)i, entries[i].dtype = PENSTOCK_I64;
        entries[i].n_bytes = sizes[i];
    }
    if ((m = message_new(&h, entries, link->n_fields, sizes, link->n_fields, NULL)) != NULL)
        for (i = 0; i < link->n_fields; i++)
            memcpy(message_bytes(m, i), link->fields[i].share.plan, sizes[i]);
    return m;
}

static void link_flow(penstock_link *link) {
    size_t i;
    for (i = 0; i < link->n_senders; i++) sender_flow(link->senders[i]);
}

void penstock_pause(penstock_link *link, unsigned turn) {
    double pause_s = 1e-4;
    while (turn-- && pause_s < 0.01) pause_s *= 1.5;
    link_flow(link);
    sleep_s(pause_s < 0.01 ? pause_s : 0.01);
}
