/* What a solver says of its simulation: the public functions, and the check of what it gives. */

int64_t penstock_id(const penstock_simulation *sim) { return sim->id; }
int64_t penstock_seed(const penstock_simulation *sim) { return sim->seed; }
int64_t penstock_attempt(const penstock_simulation *sim) { return sim->attempt; }
penstock_role penstock_role_of(const penstock_simulation *sim) { return sim->role; }
size_t penstock_n_parameters(const penstock_simulation *sim) { return sim->n_parameters; }

const char *penstock_parameter_name(const penstock_simulation *sim, size_t i) {
    return i < sim->n_parameters ? sim->parameters[i].name : NULL;
}

penstock_code penstock_parameter(penstock_simulation *sim, const char *name, double *value) {
    char known[512] = "";
    size_t i;
    for (i = 0; i < sim->n_parameters; i++) {
        if (!strcmp(sim->parameters[i].name, name)) {
            *value = sim->parameters[i].value;
            return PENSTOCK_OK;
        }
        list_name(known, sizeof known, sim->parameters[i].name);
    }
    return failed(&sim->link->why, PENSTOCK_LAYOUT_ERROR,
                  "The simulation has no parameter '%s'; it has %s.", name, *known ? known : "none");
}

int penstock_wanted(const penstock_simulation *sim, uint32_t step) {
    return simulation_wants(sim, step / sim->link->segment_steps);
}

/* Without a campaign file the first step declares its fields, and so do the first inputs. */
static penstock_code learn(penstock_link *link, const penstock_array *fields, size_t n_fields,
                           field_role when) {
    int *learned = when == ROLE_INPUT ? &link->learned_inputs : &link->learned_steps;
    penstock_code code;
    size_t i;
    if (!link->undeclared) return PENSTOCK_OK;
    for (i = 0; i < n_fields; i++) {
        field *f = link_field(link, fields[i].name);
        int64_t shape = (int64_t)fields[i].n_values;
        if (!f && *learned)
            return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                          "The %s field '%s' did not come the first time. Send every field from the "
                          "first step on, and the input fields of every simulation.",
                          when == ROLE_INPUT ? "input" : "step", fields[i].name);
        if (f && f->spec.role != ROLE_UNKNOWN) continue;
        /* What is kept back leaves with the fields that it has. */
        if (link->current && (code = simulation_flush(link->current)) != PENSTOCK_OK) return code;
        link->plan_made = 0;
        if (!f) {
            if (!(f = link_new_field(link, fields[i].name))) return link->why.code;
            if (spec_learn(&f->spec, fields[i].name, 1, &shape, when, &link->why) != PENSTOCK_OK)
                return link->why.code;
        } else {
            f->spec.role = when;
        }
    }
    *learned = 1;
    return PENSTOCK_OK;
}

/* f: NULL for a field that is not known yet. */
static penstock_code check_array(penstock_link *link, const field *f, const penstock_array *a) {
    const char *name = a->name;
    if (!dtype_bytes(a->dtype))
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "Field '%s' came with the dtype code %d; codes go from %d to %d.", name,
                      (int)a->dtype, PENSTOCK_F32, PENSTOCK_U8);
    if (f && a->n_values != f->share.n_owned)
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                      "Field '%s' came with %zu values; this rank's part has %zu. Correct "
                      "[fields.%s] or the layout.", name, a->n_values, f->share.n_owned, name);
    if (!a->values && a->n_values)
        return failed(&link->why, PENSTOCK_LAYOUT_ERROR, "Field '%s' came as NULL.", name);
    return PENSTOCK_OK;
}

/* Puts what was given in the campaign's order; every field of the kind exactly once. */
static penstock_code choose(penstock_link *link, const penstock_array *fields, size_t n_fields,
                            field_role when, const penstock_array **chosen) {
    const char *kind = when == ROLE_INPUT ? "input" : "step";
    char known[512] = "";
    size_t i;
    penstock_code code = learn(link, fields, n_fields, when);
    if (code == PENSTOCK_OK) code = link_complete_shares(link);
    for (i = 0; i < link->n_fields; i++) {
        chosen[i] = NULL;
        if (link->fields[i].spec.role == when)
            list_name(known, sizeof known, link->fields[i].spec.name);
    }
    for (i = 0; code == PENSTOCK_OK && i < n_fields; i++) {
        field *f = link_field(link, fields[i].name);
        if (!f || f->spec.role != when)
            return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                          "The %s field '%s' is not declared in the campaign file, which has %s. "
                          "Declare it under [fields.%s] or leave it out.", kind, fields[i].name,
                          *known ? known : "none", fields[i].name);
        if (chosen[f - link->fields])
            return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                          "The %s has the field '%s' twice.", kind, fields[i].name);
        code = check_array(link, f, &fields[i]);
        chosen[f - link->fields] = &fields[i];
    }
    for (i = 0; code == PENSTOCK_OK && i < link->n_fields; i++)
        if (link->fields[i].spec.role == when && !chosen[i])
            return failed(&link->why, PENSTOCK_LAYOUT_ERROR,
                          "The %s lacks the field '%s' of the campaign file.", kind,
                          link->fields[i].spec.name);
    return code;
}

static penstock_code running(const penstock_simulation *sim) {
    if (!sim->outcome) return PENSTOCK_OK;
    return failed(&sim->link->why, PENSTOCK_LAYOUT_ERROR,
                  "Simulation %lld has %s; it takes nothing more.", (long long)sim->id,
                  sim->outcome);
}

penstock_code penstock_inputs(penstock_simulation *sim, const penstock_array *fields,
                              size_t n_fields) {
    const penstock_array *chosen[MAX_FIELDS];
    penstock_code code = running(sim);
    shipment of;
    header h;
    message *m;
    size_t i;
    if (code == PENSTOCK_OK && sim->calls)
        return failed(&sim->link->why, PENSTOCK_LAYOUT_ERROR,
                      "Input fields are sent before the first step; a step went already.");
    if (code == PENSTOCK_OK) code = choose(sim->link, fields, n_fields, ROLE_INPUT, chosen);
    if (code == PENSTOCK_OK) code = simulation_open(sim);
    if (code != PENSTOCK_OK || !sim->n_lines) return code;
    of = shipment_of(sim->link, ROLE_INPUT);
    h = simulation_header(sim, INPUT, 0);
    if (!(m = shipment_message(&of, &h, chosen, NULL, NULL))) return no_memory(&sim->link->why);
    for (i = 0; code == PENSTOCK_OK && i < sim->n_lines; i++)
        code = sender_announce(sim->lines[i].to, ANNOUNCED_INPUT, sim->lease, message_again(m));
    message_free(m);
    return code;
}

penstock_code penstock_empty(penstock_simulation *sim, const char *name, size_t n_values,
                             penstock_dtype dtype, void **values) {
    penstock_link *link = sim->link;
    const field *f = link_field(link, name);
    penstock_array wanted;
    penstock_code code = running(sim);
    *values = NULL;
    if (code == PENSTOCK_OK) code = link_complete_shares(link);
    if (code == PENSTOCK_OK && !f && !link->undeclared) code = link_unknown_field(link, name);
    wanted.name = name, wanted.values = name, wanted.n_values = n_values, wanted.dtype = dtype;
    if (code == PENSTOCK_OK) code = check_array(link, f, &wanted);
    if (code != PENSTOCK_OK) return code;
    if (n_values > SIZE_MAX / dtype_bytes(dtype)) return no_memory(&link->why);
    *values = spans_empty(&sim->spans, name, n_values * dtype_bytes(dtype));
    return *values ? PENSTOCK_OK : no_memory(&link->why);
}

penstock_code penstock_send(penstock_simulation *sim, double t, const penstock_array *fields,
                            size_t n_fields) {
    const penstock_array *chosen[MAX_FIELDS];
    penstock_code code = running(sim);
    uint32_t step;
    if (code != PENSTOCK_OK) return code;
    if (sim->timed && t == sim->last_t)
        return failed(&sim->link->why, PENSTOCK_LAYOUT_ERROR,
                      "Simulation %lld sends the time %g twice. Send each step once; leave t out "
                      "(PENSTOCK_NO_TIME) for a steady problem.", (long long)sim->id, t);
    sim->timed = !isnan(t);
    sim->last_t = t;
    code = simulation_glance(sim, now_s());
    if (code != PENSTOCK_OK) return code;
    spans_sent(&sim->spans, fields, n_fields);
    if (sim->calls++ % sim->link->every) return PENSTOCK_OK;
    code = choose(sim->link, fields, n_fields, ROLE_STEP, chosen);
    if (code != PENSTOCK_OK) return code;
    step = sim->steps++;
    if (!sim->n_lines || !penstock_wanted(sim, step)) return PENSTOCK_OK;
    return simulation_post(sim, step, t, chosen);
}

/* Whether any rank has heard a refusal when they last asked each other.
 *
 * Ranks with quick steps ask every few of them, and have the same answers, so they agree on how many:
 * twice as many as before while all of them are quick, a quarter if one is not. */
static int refused_anywhere(penstock_simulation *sim) {
    double now;
    int slow, refused = simulation_refusal(sim) != NULL;
    if (sim->link->ranks.size == 1) return refused;
    if (++sim->unasked < sim->ask_every) return 0;
    now = now_s();
    slow = ranks_any(sim->link, now - sim->asked_s > ASK_S);
    refused = ranks_any(sim->link, refused);
    sim->ask_every = slow ? (sim->ask_every + 3) / 4
                          : 2 * sim->ask_every < ASK_STEPS ? 2 * sim->ask_every : ASK_STEPS;
    sim->unasked = 0, sim->asked_s = sim->called_s = now_s(); /* to wait is not to be away */
    return refused;
}

int penstock_cancelled(penstock_simulation *sim) {
    double now = now_s();
    const char *refusal;
    if (*sim->cancelled) return 1;
    if (now - sim->called_s > JUST_NOW_S) simulation_glance(sim, now); /* a later call tells */
    if (refused_anywhere(sim)) {
        refusal = simulation_refusal(sim);
        snprintf(sim->cancelled, sizeof sim->cancelled, "%s",
                 refusal ? refusal : "A shard refused what another rank sent.");
    }
    return *sim->cancelled != 0;
}

penstock_code penstock_end(penstock_simulation *sim) { return simulation_end(sim); }

penstock_code penstock_fail(penstock_simulation *sim, const char *reason) {
    return simulation_give_up(sim, reason ? reason : "no reason given");
}
