/* Where simulations come from: rank 0 asks the coordinator in the name of this worker, and all
 * ranks get the same answer or the same error; called by the link and by simulations. */

#define ERROR_KIND "error" /* between ranks only */

/* Gives rank 0's text to all ranks; collective. */
static penstock_code ranks_share(penstock_link *link, text *shared) {
    const penstock_ranks *ranks = &link->ranks;
    unsigned char length[8];
    size_t n;
    put_number(length, shared->length, 8);
    if (ranks->bcast(link, ranks->context, length, sizeof length))
        return failed(&link->why, PENSTOCK_SYSTEM_ERROR, "MPI could not share an answer.");
    n = (size_t)get_number(length, 8);
    if (ranks->rank) {
        text_free(shared);
        if (!(shared->bytes = malloc(n + 1))) return no_memory(&link->why);
        shared->length = n, shared->capacity = n + 1, shared->bytes[n] = 0;
    }
    if (ranks->bcast(link, ranks->context, shared->bytes, n))
        return failed(&link->why, PENSTOCK_SYSTEM_ERROR, "MPI could not share an answer.");
    return PENSTOCK_OK;
}

/* Whether the flag is set on any rank; collective. A failure of MPI counts as yes. */
static int ranks_any(penstock_link *link, int flag) {
    int anywhere = flag;
    if (link->ranks.size > 1 &&
        link->ranks.any(link, link->ranks.context, flag, &anywhere)) {
        failed(&link->why, PENSTOCK_SYSTEM_ERROR, "MPI could not combine a flag of all ranks.");
        return 1;
    }
    return anywhere != 0;
}

/* Rank 0's question alone. The answer of a coordinator that refuses is an error. */
static penstock_code coordinator_ask(penstock_link *link, const char *kind, const char *body,
                                     double timeout_s, text *answer) {
    penstock_code code = asker_ask(&link->asker, kind, body, timeout_s, answer, &link->why);
    json *reply;
    if (code != PENSTOCK_OK) return code;
    reply = json_read(answer->bytes, answer->length);
    if (!strcmp(json_text(json_get(reply, "kind"), ""), "refused"))
        code = failed(&link->why, PENSTOCK_REFUSED, "The coordinator refused '%s': %s", kind,
                      json_text(json_get(reply, "why"), "it gave no reason."));
    json_free(reply);
    return code;
}

/* Repeats a request for as long as the answer is `wait`. */
static penstock_code coordinator_ask_until(penstock_link *link, const char *kind,
                                           const char *body, text *answer) {
    for (;;) {
        penstock_code code = coordinator_ask(link, kind, body, PENSTOCK_PATIENCE_S, answer);
        json *reply;
        double until;
        int waits;
        if (code != PENSTOCK_OK) return code;
        reply = json_read(answer->bytes, answer->length);
        waits = !strcmp(json_text(json_get(reply, "kind"), ""), "wait");
        until = now_s() + json_real(json_get(reply, "retry_s"), 0.2);
        json_free(reply);
        if (!waits) return PENSTOCK_OK;
        text_free(answer);
        while (now_s() < until) {
            link_flow(link);
            sleep_s(0.02);
        }
    }
}

/* Asks on rank 0 and reads the answer on all; collective. */
static penstock_code coordinator_together(penstock_link *link, const char *kind,
                                          const char *body, json **answer) {
    text shared = {NULL, 0, 0, 0};
    penstock_code code = PENSTOCK_OK;
    if (link->ranks.rank == 0) code = coordinator_ask_until(link, kind, body, &shared);
    if (link->ranks.size > 1) {
        if (code != PENSTOCK_OK) {
            text_free(&shared);
            text_put(&shared, "{\"kind\":\"" ERROR_KIND "\",\"code\":%d,\"why\":", (int)code);
            json_quote(&shared, link->why.text);
            text_put(&shared, "}");
        }
        code = ranks_share(link, &shared);
    }
    *answer = code == PENSTOCK_OK ? json_read(shared.bytes, shared.length) : NULL;
    text_free(&shared);
    if (code == PENSTOCK_OK && !*answer) return no_memory(&link->why);
    if (code == PENSTOCK_OK && !strcmp(json_text(json_get(*answer, "kind"), ""), ERROR_KIND)) {
        code = failed(&link->why, (penstock_code)json_integer(json_get(*answer, "code"), 0), "%s",
                      json_text(json_get(*answer, "why"), ""));
        json_free(*answer);
        *answer = NULL;
    }
    return code;
}

static penstock_code coordinator_hello(penstock_link *link, json **welcome) {
    text body = {NULL, 0, 0, 0};
    char host[256] = "";
    penstock_code code;
    gethostname(host, sizeof host - 1);
    text_put(&body, ",\"agent\":");
    json_quote(&body, getenv("PENSTOCK_AGENT"));
    text_put(&body, ",\"pid\":%ld,\"parts\":%d,\"client\":\"c\",\"host\":", (long)getpid(),
             link->ranks.size);
    json_quote(&body, host);
    code = body.broken ? no_memory(&link->why)
                       : coordinator_together(link, "hello", body.bytes, welcome);
    text_free(&body);
    return code;
}

static int next_body(penstock_link *link, text *body, int leaving) {
    text_put(body, ",\"sequence\":%lld,\"previous\":", (long long)++link->sequence);
    if (link->outcome.length) text_add(body, link->outcome.bytes, link->outcome.length);
    else text_put(body, "null");
    if (leaving) text_put(body, ",\"leaving\":true");
    return !body->broken && !link->outcome.broken;
}

/* The next assignment, or NULL when there are no more; tells how the one before ended. */
static penstock_code coordinator_next(penstock_link *link, json **assignment) {
    text body = {NULL, 0, 0, 0};
    penstock_code code = next_body(link, &body, 0)
                             ? coordinator_together(link, "next", body.bytes, assignment)
                             : no_memory(&link->why);
    text_free(&body);
    if (code != PENSTOCK_OK) return code;
    text_free(&link->outcome);
    if (strcmp(json_text(json_get(*assignment, "kind"), ""), "assignment")) {
        json_free(*assignment);
        *assignment = NULL;
        return PENSTOCK_OVER;
    }
    return PENSTOCK_OK;
}

/* Says goodbye, and how the last simulation ended. */
static penstock_code coordinator_leave(penstock_link *link) {
    text body = {NULL, 0, 0, 0}, answer = {NULL, 0, 0, 0};
    penstock_code code = PENSTOCK_OK;
    if (link->ranks.rank) return PENSTOCK_OK;
    code = next_body(link, &body, 1)
               ? coordinator_ask(link, "next", body.bytes, PENSTOCK_PATIENCE_S, &answer)
               : no_memory(&link->why);
    text_free(&body);
    text_free(&answer);
    return code;
}

/* Tells at once, from whichever rank, that the simulation failed. */
static penstock_code coordinator_fail(penstock_link *link) {
    text body = {NULL, 0, 0, 0}, answer = {NULL, 0, 0, 0};
    penstock_code code = PENSTOCK_OK;
    if (!link->outcome.length) return PENSTOCK_OK;
    text_put(&body, ",");
    text_add(&body, link->outcome.bytes + 1, link->outcome.length - 2); /* without its braces */
    code = body.broken ? no_memory(&link->why)
                       : coordinator_ask(link, "fail", body.bytes, 5.0, &answer);
    text_free(&body);
    text_free(&answer);
    return code;
}

/* Names the fields where no campaign file does. */
static penstock_code coordinator_declare(penstock_link *link) {
    text body = {NULL, 0, 0, 0}, answer = {NULL, 0, 0, 0};
    penstock_code code;
    size_t i;
    int axis;
    if (link->ranks.rank) return PENSTOCK_OK;
    text_put(&body, ",\"fields\":{");
    for (i = 0; i < link->n_fields; i++) {
        const spec *s = &link->fields[i].spec;
        text_put(&body, i ? "," : "");
        json_quote(&body, s->name);
        text_put(&body, ":{\"shape\":[");
        for (axis = 0; axis < s->n_axes; axis++)
            text_put(&body, axis ? ",%lld" : "%lld", (long long)s->shape[axis]);
        text_put(&body, "],\"dtype\":\"float64\",\"index\":%zu,\"role\":\"%s\"}", i,
                 s->role == ROLE_INPUT ? "input" : "state");
    }
    text_put(&body, "}");
    code = body.broken ? no_memory(&link->why)
                       : coordinator_ask(link, "fields", body.bytes, PENSTOCK_PATIENCE_S, &answer);
    text_free(&body);
    text_free(&answer);
    return code;
}

/* Announces this rank's layout of all fields to a shard that does not know it. */
static penstock_code link_tell_plan(penstock_link *link, sender *to) {
    penstock_code code = link_complete_shares(link);
    if (code == PENSTOCK_OK && !link->plan_made) {
        link->plan_made = 1;
        link->plan++;
        if (link->undeclared) code = coordinator_declare(link);
    }
    if (code != PENSTOCK_OK || to->planned == link->plan) return code;
    /* What was said under the plan before may have to be said again, but by no simulation to come. */
    if (to->planned && !(link->current && simulation_is_open(link->current)))
        sender_withdraw(to, ANNOUNCED_PLAN, to->planned);
    to->planned = link->plan;
    return sender_announce(to, ANNOUNCED_PLAN, link->plan, link_plan(link));
}
