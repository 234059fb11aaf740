/* One simulation on one rank: checks what the solver sends and puts it on the way.
 *
 * The way of a step begins here: penstock_send waits for credit and puts this rank's share of each
 * field on the line to the shard of the step's segment: a copy of it, or the memory of the stream
 * that the solver wrote it into.
 */

#define JUST_NOW_S 0.001 /* nothing new is to be expected within it */
#define ASK_S 0.05       /* between two questions to all ranks, or */
#define ASK_STEPS 16     /* so many steps, whichever is sooner */

struct penstock_simulation {
    penstock_link *link;
    int64_t id, seed, attempt;
    uint32_t lease;
    penstock_role role;
    json *assignment; /* holds the names */
    penstock_value *parameters;
    size_t n_parameters;
    spans spans;
    line *lines; /* one a shard; none without a server */
    size_t n_lines;
    int opened;
    const char *outcome; /* NULL: it runs */
    char reason[1024];
    char cancelled[1024]; /* the reason, as soon as all ranks know */
    uint32_t steps;       /* sent, after `every` */
    int64_t calls;
    int timed;
    double last_t;
    double began_s, called_s;      /* made; last called in */
    double credit_s, window_s;     /* for which `send` waited */
    int64_t unasked, ask_every;    /* calls of `cancelled` since all ranks were asked, and until */
    double asked_s;
};

static void simulation_free(penstock_simulation *sim) {
    size_t i;
    if (!sim) return;
    for (i = 0; i < sim->n_lines; i++) line_drop(&sim->lines[i]);
    free(sim->lines);
    spans_close(&sim->spans);
    json_free(sim->assignment);
    free(sim->parameters);
    free(sim);
}

/* Whether shards know of it and more of it may come. */
static int simulation_is_open(const penstock_simulation *sim) {
    return sim->opened && !sim->outcome;
}

static penstock_code simulation_shards(penstock_simulation *sim) {
    const json *shards = json_get(sim->assignment, "shards"), *shard;
    size_t n = json_length(shards);
    if (!(sim->lines = calloc(n + 1, sizeof *sim->lines))) return no_memory(&sim->link->why);
    for (shard = shards ? shards->child : NULL; shard; shard = shard->next) {
        sender *found = link_sender(sim->link, json_text(shard, ""), n);
        if (!found) return sim->link->why.code;
        line_begin(&sim->lines[sim->n_lines++], sim->link, &sim->spans, found);
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
    sim->link = link, sim->assignment = assignment, sim->spans.home = &link->arena;
    sim->began_s = sim->called_s = sim->asked_s = now_s();
    sim->ask_every = 1;
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
    for (i = 0; i < sim->n_lines; i++) {
        const char *reason = standings_refusal(&sim->lines[i].to->said, sim->lease);
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
    h.geometry = (uint32_t)sim->n_lines, h.flags = (uint32_t)sim->role;
    if (!(m = message_new(&h, NULL, 0, &n_bytes, 1, NULL))) return NULL;
    for (i = 0; i < sim->n_parameters; i++)
        memcpy(message_bytes(m, 0) + i * sizeof(double), &sim->parameters[i].value,
               sizeof(double));
    return m;
}

/* Plans and OPEN, where they were not said yet. */
static penstock_code simulation_open(penstock_simulation *sim) {
    penstock_code code = PENSTOCK_OK;
    size_t i;
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++)
        code = link_tell_plan(sim->link, sim->lines[i].to);
    if (code != PENSTOCK_OK || sim->opened) return code;
    sim->opened = 1;
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++)
        code = sender_announce(sim->lines[i].to, ANNOUNCED_OPEN, sim->lease, open_message(sim, i));
    return code;
}

static void simulation_drop(penstock_simulation *sim) {
    size_t i;
    for (i = 0; i < sim->n_lines; i++) line_drop(&sim->lines[i]);
}

/* The solver calls in: also shards whose turn it is not are looked at, and have steps. */
static penstock_code simulation_glance(penstock_simulation *sim, double now) {
    double away_s = now - sim->called_s;
    penstock_code code = PENSTOCK_OK;
    size_t i;
    sim->called_s = now;
    if (simulation_refusal(sim)) simulation_drop(sim);
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++)
        code = line_glance(&sim->lines[i], now, away_s);
    return code;
}

/* Posts what is kept back, if a shard still wants it. */
static penstock_code simulation_flush(penstock_simulation *sim) {
    penstock_code code = PENSTOCK_OK;
    size_t i;
    if (simulation_refusal(sim)) simulation_drop(sim);
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++) code = line_flush(&sim->lines[i]);
    return code;
}

/* A segment that waits for its shard. */
typedef struct place {
    const penstock_simulation *sim;
    int64_t ordinal;    /* of the segment there */
    penstock_code code; /* of hearing the other shards meanwhile */
} place;

static int has_room(sender *s, uint32_t lease, int64_t ordinal) {
    return standings_granted(&s->said, lease) > ordinal && sender_has_room(s);
}

/* Hears the other shards too: one that was restarted wants its steps again. Without them its slots
 * stay open and its trainer waits, perhaps the room here with them. */
static int may_go_on(sender *s, void *of) {
    place *at = of;
    size_t i;
    for (i = 0; at->code == PENSTOCK_OK && i < at->sim->n_lines; i++)
        at->code = sender_flow(at->sim->lines[i].to);
    return at->code != PENSTOCK_OK || simulation_refusal(at->sim) ||
           (standings_granted(&s->said, at->sim->lease) > at->ordinal && sender_has_much_room(s));
}

/* Waits until a shard takes one more step of the segment, or none of the simulation. */
static penstock_code simulation_await(penstock_simulation *sim, sender *to, int64_t ordinal) {
    penstock_code code = sender_flow(to); /* it looks but rarely of itself */
    double began = now_s(), waited_s, *lacks;
    place at = {sim, ordinal, PENSTOCK_OK};
    size_t i;
    if (code != PENSTOCK_OK || has_room(to, sim->lease, ordinal)) return code;
    lacks = standings_granted(&to->said, sim->lease) > ordinal ? &sim->window_s : &sim->credit_s;
    code = simulation_flush(sim);
    if (code == PENSTOCK_OK) code = sender_wait(to, may_go_on, &at, "room in the reservoir");
    if (code == PENSTOCK_OK) code = at.code;
    waited_s = now_s() - began;
    *lacks += waited_s;
    for (i = 0; i < sim->n_lines; i++) line_waited(&sim->lines[i], waited_s);
    return code;
}

/* Puts a step on the line to the shard of its segment, as soon as that has room. */
static penstock_code simulation_post(penstock_simulation *sim, uint32_t step, double t,
                                     const penstock_array *const *chosen) {
    int64_t segment = step / sim->link->segment_steps;
    line *l = &sim->lines[(size_t)segment % sim->n_lines];
    header h = simulation_header(sim, PART, step);
    int64_t ordinal = segment / (int64_t)sim->n_lines;
    penstock_code code = simulation_open(sim);
    if (code == PENSTOCK_OK && !has_room(l->to, sim->lease, ordinal))
        code = simulation_await(sim, l->to, ordinal);
    if (code != PENSTOCK_OK || simulation_refusal(sim)) return code;
    h.plan = sim->link->plan, h.t = t;
    code = line_put(l, &h, chosen, now_s());
    sim->called_s = l->put_s;
    return code;
}

/* As JSON writes a number, whatever the locale says. */
static void put_seconds(text *out, double seconds) {
    long long us = (long long)(1e6 * seconds);
    text_put(out, "%lld.%06lld", us / 1000000, us % 1000000);
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
    text_put(out, ",\"time_s\":{\"seconds\":");
    put_seconds(out, now_s() - sim->began_s);
    text_put(out, ",\"credit\":");
    put_seconds(out, sim->credit_s);
    text_put(out, ",\"window\":");
    put_seconds(out, sim->window_s);
    text_put(out, "}}");
    return out->broken ? no_memory(&link->why) : PENSTOCK_OK;
}

static penstock_code simulation_last(penstock_simulation *sim, int kind, uint32_t step) {
    penstock_code code = PENSTOCK_OK;
    size_t i;
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++) {
        header h = simulation_header(sim, kind, step);
        code = sender_post(sim->lines[i].to, message_new(&h, NULL, 0, NULL, 0, NULL));
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
    code = simulation_flush(sim);
    if (code == PENSTOCK_OK) code = simulation_open(sim);
    if (code == PENSTOCK_OK) /* after a refusal steps are missing */
        code = refusal ? simulation_last(sim, FAIL, 0) : simulation_last(sim, END, sim->steps);
    noted = simulation_finished(sim);
    return code == PENSTOCK_OK ? noted : code;
}

static penstock_code simulation_give_up(penstock_simulation *sim, const char *reason) {
    penstock_code code = PENSTOCK_OK, noted;
    if (sim->outcome) return PENSTOCK_OK;
    simulation_outcome(sim, "failed", reason);
    simulation_drop(sim);
    if (sim->opened) code = simulation_last(sim, FAIL, 0);
    noted = simulation_finished(sim);
    return code == PENSTOCK_OK ? noted : code;
}

/* The worker turns to the next simulation. */
static void simulation_release(penstock_simulation *sim) {
    size_t i;
    for (i = 0; i < sim->n_lines; i++) {
        sender *to = sim->lines[i].to;
        sender_withdraw(to, ANNOUNCED_OPEN, sim->lease);
        sender_withdraw(to, ANNOUNCED_INPUT, sim->lease);
        standings_forget(&to->said, sim->lease);
    }
    simulation_free(sim);
}
