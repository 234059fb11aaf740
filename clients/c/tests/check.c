/* What the conformance kit cannot see of the C client: its JSON, answers that are no messages,
 * silence, and wrong calls. `make check` runs it with the sanitizers and the golden frames' folder.
 */
#include "penstock.c"

static int failures = 0;

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            failures++;                                                         \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
        }                                                                       \
    } while (0)

static json *parse(const char *words) { return json_read(words, strlen(words)); }

static void json_is_read_as_it_is_written(void) {
    json *m = parse(" {\"a\": [1, -2.5e3, true, null], \"\\u00e9\\ud83d\\ude00\\n\": \"x\\\"\\\\\", "
                   "\"big\": 4611686018427400249, \"empty\": {}, \"none\": []} ");
    const json *a = json_get(m, "a");
    CHECK(m && json_length(a) == 4);
    CHECK(json_integer(element(a, 0), 0) == 1);
    CHECK(json_real(element(a, 1), 0) == -2500.0);
    CHECK(element(a, 2)->kind == JSON_TRUE && element(a, 3)->kind == JSON_NULL);
    CHECK(!strcmp(json_text(json_get(m, "\xc3\xa9\xf0\x9f\x98\x80\n"), ""), "x\"\\"));
    CHECK(json_integer(json_get(m, "big"), 0) == 4611686018427400249);
    CHECK(json_integer(element(a, 1), 77) == 77); /* no integer */
    CHECK(json_get(m, "empty")->kind == JSON_OBJECT && json_length(json_get(m, "none")) == 0);
    json_free(m);
}

static void what_is_no_json_object_is_refused(void) {
    static const char *const wrong[] = {
        "", "[]", "1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1}x", "{\"a\":\"\\q\"}",
        "{\"a\":\"\\u12\"}", "{\"a\":\"x}", "{\"a\":\"x\\\"}", "{\"a\":tru}", "{\"a\":[1 2]}",
        "{'a':1}", "{\"a\":\"\n\"}", "\"\\", "{\"a\":+1}", "{\"\\",
    };
    char deep[300] = "{\"a\":";
    size_t i;
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json *m = parse(wrong[i]);
        if (m) fprintf(stderr, "read: %s\n", wrong[i]);
        CHECK(!m);
        json_free(m);
    }
    memset(deep + 5, '[', sizeof deep - 6);
    CHECK(!parse(deep));
}

static void every_beginning_of_a_message_is_survived(void) {
    static const char whole[] = "{\"k\\u00e9\":[{\"a\":\"\\ud83d\\ude00\"},-1.5e-3,true],\"n\":null}";
    size_t n;
    for (n = 0; n < sizeof whole - 1; n++) {
        char *copy = malloc(n + 1); /* of its exact length, so that the sanitizer sees the end */
        json *m;
        memcpy(copy, whole, n);
        m = json_read(copy, n);
        CHECK(!m);
        json_free(m);
        free(copy);
    }
}

static void strings_are_quoted_and_what_is_no_utf8_is_replaced(void) {
    text t = {NULL, 0, 0, 0};
    json_quote(&t, "\xc3\xa9 \"\\\n\x01 \xe9 \xed\xa0\x80 \xf0\x9f\x98\x80 \xc3");
    CHECK(!strcmp(t.bytes, "\"\xc3\xa9 \\\"\\\\\\u000a\\u0001 ? ??? \xf0\x9f\x98\x80 ?\""));
    text_free(&t);
}

/* A locale with a decimal comma, where the machine has one. */
static void numbers_do_not_depend_on_the_locale(void) {
    json *m = parse("{\"a\": 0.25}");
    setlocale(LC_ALL, "de_DE.UTF-8");
    CHECK(json_real(json_get(m, "a"), 0) == 0.25);
    setlocale(LC_ALL, "C");
    json_free(m);
}

static size_t golden(const char *folder, const char *name, unsigned char *out, size_t n) {
    char path[512];
    FILE *file;
    size_t got = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if ((file = fopen(path, "rb")) != NULL) {
        got = fread(out, 1, n, file);
        fclose(file);
    }
    CHECK(got > 0);
    return got;
}

static void the_golden_answers_are_decoded(const char *folder) {
    unsigned char frame[256];
    size_t n = golden(folder, "ack.0.bin", frame, sizeof frame), i;
    header h;
    CHECK(wire_decode(&h, frame, n) && h.kind == ACK && h.step == 1 && h.sequence == 44);
    CHECK(h.flags == HOLD && h.campaign == 11259375);
    for (i = 0; i < n; i++) CHECK(!wire_decode(&h, frame, i));
    frame[4] = 2;
    CHECK(!wire_decode(&h, frame, n));
    n = golden(folder, "refused.0.bin", frame, sizeof frame);
    CHECK(wire_decode(&h, frame, n) && h.kind == REFUSED && h.lease == 7);
    CHECK(h.simulation == 4294967297u && isnan(h.t));
    n = golden(folder, "resync.0.bin", frame, sizeof frame);
    CHECK(wire_decode(&h, frame, n) && h.kind == RESYNC);
}

/* PART and the others come out of a real program in the kit; this one no program reaches. */
static void a_steady_step_without_values_is_encoded_as_the_golden_frame(const char *folder) {
    unsigned char expected[256], frame[HEADER_BYTES + ENTRY_BYTES];
    size_t n = golden(folder, "steady.0.bin", expected, sizeof expected);
    const entry row = {0, PENSTOCK_F32, 0};
    header h;
    memset(&h, 0, sizeof h);
    h.kind = PART, h.campaign = 11259375, h.simulation = 5, h.lease = 8, h.n_parts = 2, h.plan = 2;
    h.sequence = 46, h.t = -penstock_no_time();
    wire_encode(frame, &h, &row, 1);
    CHECK(n == sizeof frame && !memcmp(frame, expected, n));
}

static void wrong_calls_are_told_in_sentences(void) {
    static const int64_t shape[] = {3, 2}, start[] = {0, 0}, extent[] = {3, 2}, wide[] = {4, 2};
    const penstock_value alone[] = {{"nu", 0.5}};
    const double u[6] = {0};
    const float v[6] = {0};
    penstock_array both[2];
    penstock_link *link;
    penstock_simulation *sim;
    double nu = 0;
    CHECK(penstock_connect(&link, NULL, alone, 1) == PENSTOCK_OK);
    CHECK(penstock_layout_box(link, "u", 2, shape, start, extent) == PENSTOCK_OK);
    CHECK(penstock_layout_box(link, "u", 2, wide, start, extent) == PENSTOCK_LAYOUT_ERROR);
    CHECK(strstr(penstock_error(link), "(4, 2)") && strstr(penstock_error(link), "(3, 2)"));
    CHECK(penstock_layout_box(link, "u", 2, shape, start, wide) == PENSTOCK_LAYOUT_ERROR);
    CHECK(penstock_layout_indices(link, "u", 2, shape, wide, 2) == PENSTOCK_OK);
    CHECK(penstock_layout_indices(link, "u", 2, shape, (const int64_t[]){6}, 1) ==
          PENSTOCK_LAYOUT_ERROR);
    CHECK(penstock_layout_box(link, "u", 2, shape, start, extent) == PENSTOCK_OK);
    CHECK(penstock_next(link, &sim) == PENSTOCK_OK && sim);
    CHECK(penstock_parameter(sim, "nu", &nu) == PENSTOCK_OK && nu == 0.5);
    CHECK(penstock_parameter(sim, "mu", &nu) == PENSTOCK_LAYOUT_ERROR);
    CHECK(strstr(penstock_error(link), "it has nu"));
    both[0] = penstock_f64("u", u, 5), both[1] = penstock_f32("v", v, 6);
    CHECK(penstock_send(sim, 0.0, both, 2) == PENSTOCK_LAYOUT_ERROR);
    CHECK(strstr(penstock_error(link), "5 values"));
    both[0] = penstock_f64("u", u, 6);
    CHECK(penstock_send(sim, 0.5, both, 2) == PENSTOCK_OK);
    CHECK(penstock_send(sim, 0.5, both, 2) == PENSTOCK_LAYOUT_ERROR); /* the same time twice */
    CHECK(penstock_send(sim, 1.0, both, 1) == PENSTOCK_LAYOUT_ERROR); /* v is missing */
    both[1] = both[0];
    CHECK(penstock_send(sim, 1.5, both, 2) == PENSTOCK_LAYOUT_ERROR); /* u twice */
    both[1] = penstock_f64("w", u, 6);
    CHECK(penstock_send(sim, 2.0, both, 2) == PENSTOCK_LAYOUT_ERROR); /* w came late */
    CHECK(penstock_inputs(sim, both, 1) == PENSTOCK_LAYOUT_ERROR);
    CHECK(!penstock_cancelled(sim));
    CHECK(penstock_end(sim) == PENSTOCK_OK && penstock_end(sim) == PENSTOCK_OK);
    CHECK(penstock_send(sim, 3.0, both, 2) == PENSTOCK_LAYOUT_ERROR);
    CHECK(penstock_next(link, &sim) == PENSTOCK_OVER && !sim);
    CHECK(penstock_close(link) == PENSTOCK_OK && penstock_close(link) == PENSTOCK_OK);
    CHECK(penstock_next(link, &sim) == PENSTOCK_LAYOUT_ERROR);
    penstock_free(link);
    penstock_free(NULL);
}

/* This check is built with a patience of 1.5 s. */
static void silence_is_an_error_that_names_who_was_silent(void) {
    penstock_link *link;
    void *context = zmq_ctx_new(), *mute = zmq_socket(context, ZMQ_ROUTER);
    char address[64];
    size_t n = sizeof address;
    problem why;
    header identity;
    sender *s;
    zmq_bind(mute, "tcp://127.0.0.1:*");
    zmq_getsockopt(mute, ZMQ_LAST_ENDPOINT, address, &n);
    setenv("PENSTOCK_COORDINATOR", address, 1);
    CHECK(penstock_connect(&link, NULL, NULL, 0) == PENSTOCK_CONNECTION_LOST);
    CHECK(strstr(penstock_error(link), "did not answer 'hello'"));
    penstock_free(link);
    unsetenv("PENSTOCK_COORDINATOR");

    memset(&identity, 0, sizeof identity);
    s = sender_open(context, "7", address, &identity, 100, NULL, NULL, &why);
    identity.kind = PLAN;
    CHECK(s && sender_post(s, message_new(&identity, NULL, 0, NULL, 0, NULL)) == PENSTOCK_OK);
    CHECK(s && sender_drain(s) == PENSTOCK_CONNECTION_LOST);
    CHECK(strstr(why.text, "Shard 7 has not answered"));
    if (s) sender_close(s);
    zmq_close(mute);
    zmq_ctx_term(context);
    if (s) sender_free(s);
}

/* One that was restarted wants its steps again, and room elsewhere may depend on them. */
static void while_one_shard_has_no_room_the_others_are_heard(void) {
    void *context = zmq_ctx_new(), *shards[2];
    line lines[2];
    char address[64], peer[64];
    unsigned char frame[HEADER_BYTES];
    int i, n_peer;
    problem why;
    header h;
    penstock_simulation sim;
    place at = {&sim, 0, PENSTOCK_OK};
    memset(&h, 0, sizeof h);
    memset(&sim, 0, sizeof sim);
    sim.lease = 1, sim.lines = lines, sim.n_lines = 2;
    for (i = 0; i < 2; i++) {
        size_t n = sizeof address;
        shards[i] = zmq_socket(context, ZMQ_ROUTER);
        zmq_bind(shards[i], "tcp://127.0.0.1:*");
        zmq_getsockopt(shards[i], ZMQ_LAST_ENDPOINT, address, &n);
        line_begin(&lines[i], NULL, NULL,
                   sender_open(context, i ? "1" : "0", address, &h, 100, NULL, NULL, &why));
        CHECK(lines[i].to);
    }
    CHECK(!may_go_on(lines[0].to, &at));
    n_peer = zmq_recv(shards[1], peer, sizeof peer, 0);
    zmq_recv(shards[1], frame, sizeof frame, 0);
    h.kind = REFUSED, h.lease = 1;
    wire_encode(frame, &h, NULL, 0);
    zmq_send(shards[1], peer, (size_t)n_peer, ZMQ_SNDMORE);
    zmq_send(shards[1], frame, sizeof frame, ZMQ_SNDMORE);
    zmq_send(shards[1], "no", 2, 0);
    CHECK(sender_wait(lines[0].to, may_go_on, &at, "room in the reservoir") == PENSTOCK_OK);
    CHECK(at.code == PENSTOCK_OK && simulation_refusal(&sim));
    for (i = 0; i < 2; i++) {
        sender_close(lines[i].to);
        zmq_close(shards[i]);
    }
    zmq_ctx_term(context);
    for (i = 0; i < 2; i++) sender_free(lines[i].to);
}

/* A link and its simulation that run at once, on a shard that never answers; returns its socket. */
static void *run_on(penstock_link *link, penstock_simulation *sim, line *l, size_t n_values) {
    const int64_t shape[] = {(int64_t)n_values}, start[] = {0};
    char address[64];
    size_t n = sizeof address;
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    header identity;
    memset(link, 0, sizeof *link);
    memset(sim, 0, sizeof *sim);
    memset(&identity, 0, sizeof identity);
    zmq_bind(router, "tcp://127.0.0.1:*");
    zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, address, &n);
    link->ranks.size = 1, link->segment_steps = link->every = 1;
    link->ranks.rank = 1; /* rank 0 would tell a coordinator of the fields */
    link->undeclared = link->plan_made = 1, link->plan = 1;
    link->bunch_bytes = 1 << 16, link->window_bytes = 1 << 20;
    CHECK(penstock_layout_box(link, "a", 1, shape, start, shape) == PENSTOCK_OK);
    CHECK(penstock_layout_box(link, "b", 1, shape, start, shape) == PENSTOCK_OK);
    sim->link = link, sim->spans.home = &link->arena, sim->lines = l, sim->n_lines = 1;
    sim->lease = 1, sim->opened = 1;
    sim->called_s = now_s();
    link->context = context;
    line_begin(l, link, &sim->spans,
               sender_open(context, "0", address, &identity, 1 << 20, NULL, NULL, &link->why));
    link->current = sim, l->to->planned = link->plan = 1, link->plan_made = 1;
    standings_make(&l->to->said, 1)->granted = 100;
    return router;
}

static void end_on(penstock_link *link, line *l, void *router) {
    size_t i;
    line_drop(l);
    sender_close(l->to);
    zmq_close(router);
    zmq_ctx_term(link->context);
    sender_free(l->to);
    arena_close(&link->arena);
    for (i = 0; i < link->n_fields; i++) {
        spec_free(&link->fields[i].spec);
        share_free(&link->fields[i].share);
    }
    free(link->fields);
}

static void what_is_kept_back_leaves_before_another_field_shows_its_role(void) {
    double u[8] = {0};
    penstock_array fields[2];
    penstock_link link;
    penstock_simulation sim;
    line l;
    int i, kept = 0;
    void *router = run_on(&link, &sim, &l, 8);
    fields[0] = penstock_f64("a", u, 8), fields[1] = penstock_f64("b", u, 8);
    for (i = 0; i < 20; i++, kept = l.bunch != NULL)
        CHECK(penstock_send(&sim, i, fields, 1) == PENSTOCK_OK);
    CHECK(kept);
    for (; i < 40; i++) CHECK(penstock_send(&sim, i, fields, 2) == PENSTOCK_OK);
    CHECK(!l.bunch || l.bunch->n_rows == 2);
    end_on(&link, &l, router);
}

static void what_is_kept_back_is_dropped_when_a_refusal_is_heard(void) {
    double u[8] = {0};
    penstock_array fields[1];
    penstock_link link;
    penstock_simulation sim;
    line l;
    size_t posted;
    int i;
    void *router = run_on(&link, &sim, &l, 8);
    fields[0] = penstock_f64("a", u, 8);
    for (i = 0; i < 20; i++) CHECK(penstock_send(&sim, i, fields, 1) == PENSTOCK_OK);
    posted = l.to->unacked.n;
    CHECK(l.bunch && standings_refuse(&l.to->said, 1, "no", 2));
    CHECK(penstock_send(&sim, 20, fields, 1) == PENSTOCK_OK && penstock_cancelled(&sim));
    CHECK(!l.bunch && l.to->unacked.n == posted);
    end_on(&link, &l, router);
}

/* The eighth value of a field of a message. */
static const double *last_of(const message *m, size_t i) {
    return (const double *)(const void *)message_bytes(m, i) + 7;
}

/* Each step is made of the one before, in memory of the stream; some are acknowledged at once. */
static void what_the_solver_wrote_is_sent_from_there_and_can_be_read_until_the_next(void) {
    penstock_array fields[1], both[2];
    penstock_link link;
    penstock_simulation sim;
    line l;
    const double *before = NULL, *waiting = NULL;
    const message *sent;
    void *values, *again;
    int i;
    void *router = run_on(&link, &sim, &l, 8);
    link.bunch_bytes = 0;
    for (i = 0; i < 20; i++) {
        double *u;
        CHECK(penstock_empty(&sim, "a", 8, PENSTOCK_F64, &values) == PENSTOCK_OK);
        CHECK(penstock_empty(&sim, "a", 8, PENSTOCK_F64, &again) == PENSTOCK_OK);
        CHECK(values && values == again && values != before && values != waiting);
        CHECK(!before || before[7] == i);
        u = values;
        u[7] = i + 1;
        fields[0] = penstock_f64("a", u, 8);
        CHECK(penstock_send(&sim, i, fields, 1) == PENSTOCK_OK);
        CHECK(message_bytes(*window_at(&l.to->unacked, l.to->unacked.n - 1), 0) == values);
        if (i == 9) waiting = u;
        else if (i < 9 || i > 14) sender_acknowledged(l.to, l.to->next);
        if (i > 14) waiting = NULL;
        before = u;
    }
    CHECK(!l.to->unacked.n);
    CHECK(penstock_send(&sim, 20, fields, 1) == PENSTOCK_OK); /* a steady state: once more */
    CHECK(message_bytes(*window_at(&l.to->unacked, 0), 0) == values);
    CHECK(penstock_empty(&sim, "a", 7, PENSTOCK_F64, &values) == PENSTOCK_LAYOUT_ERROR);
    CHECK(penstock_empty(&sim, "a", 8, PENSTOCK_F32, &values) == PENSTOCK_OK);
    fields[0] = penstock_f32("a", values, 8);
    memset(values, 0, 8 * sizeof(float));
    CHECK(penstock_send(&sim, 21, fields, 1) == PENSTOCK_OK); /* converted, so copied */
    CHECK(message_bytes(*window_at(&l.to->unacked, 1), 0) != values);
    for (i = 22; i < 24; i++) { /* and the one before, as another field with it, is copied in time */
        CHECK(penstock_empty(&sim, "a", 8, PENSTOCK_F64, &again) == PENSTOCK_OK);
        ((double *)again)[7] = i;
        both[0] = penstock_f64("a", again, 8), both[1] = penstock_f64("b", i > 22 ? values : again, 8);
        CHECK(penstock_send(&sim, i, both, 2) == PENSTOCK_OK);
        sent = *window_at(&l.to->unacked, l.to->unacked.n - 1);
        CHECK(message_bytes(sent, 0) == again && *last_of(sent, 0) == i);
        CHECK(*last_of(sent, 1) == 22);
        CHECK(message_bytes(sent, 1) != again && message_bytes(sent, 1) != values);
        sender_acknowledged(l.to, l.to->next);
        values = again;
    }
    spans_close(&sim.spans);
    end_on(&link, &l, router);
}

static void a_large_step_that_lies_in_the_memory_of_the_stream_goes_alone(void) {
    static double own[ALONE_BYTES / sizeof(double)];
    const size_t n = sizeof own / sizeof *own;
    penstock_array fields[1];
    penstock_link link;
    penstock_simulation sim;
    line l;
    void *values;
    int i;
    void *router = run_on(&link, &sim, &l, n);
    link.bunch_bytes = 4 * sizeof own;
    for (i = 0; i < 20; i++) {
        CHECK(penstock_empty(&sim, "a", n, PENSTOCK_F64, &values) == PENSTOCK_OK);
        fields[0] = penstock_f64("a", values, n);
        CHECK(penstock_send(&sim, i, fields, 1) == PENSTOCK_OK && !l.bunch);
        CHECK(message_bytes(*window_at(&l.to->unacked, l.to->unacked.n - 1), 0) == values);
        sender_acknowledged(l.to, l.to->next);
    }
    fields[0] = penstock_f64("a", own, n); /* has to be copied anyway */
    for (; i < 40 && !l.bunch; i++) {
        CHECK(penstock_send(&sim, i, fields, 1) == PENSTOCK_OK);
        sender_acknowledged(l.to, l.to->next);
    }
    CHECK(l.bunch);
    spans_close(&sim.spans);
    end_on(&link, &l, router);
}

static void what_stays_on_this_host_is_known_by_its_address(void) {
    static const char *const elsewhere[] = {
        "tcp://192.0.2.1:9", "tcp://[2001:db8::1]:9", "tcp://localhost:9", "tcp://127.0.0.1",
        "tcp://:9", "ipc:///tmp/x:9", "", "tcp://127.0.0.1:port",
    };
    size_t i;
    CHECK(stays_here("tcp://127.0.0.1:9"));
    for (i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++) CHECK(!stays_here(elsewhere[i]));
}

static void what_stays_on_this_host_is_given_to_the_system_in_small_pieces(void) {
    penstock_link link;
    penstock_simulation sim;
    line l;
    int given = 0;
    size_t n = sizeof given;
    void *router = run_on(&link, &sim, &l, 8);
    CHECK(!zmq_getsockopt(l.to->socket, ZMQ_SNDBUF, &given, &n) && given == LOCAL_BUFFER_BYTES);
    end_on(&link, &l, router);
}

/* The arena is used again, and what does not fit comes from elsewhere. */
static void buffers_come_back_and_are_found_in_the_memory_that_is_lent(void) {
    arena a;
    buffer *first, *second, *large;
    memset(&a, 0, sizeof a);
    arena_lend(&a, 10000);
    first = arena_take(&a, 3000), second = arena_take(&a, 3000), large = arena_take(&a, 9000);
    CHECK(first && second && large && first != second);
#ifdef __linux__
    CHECK(first->place == FIRST_BYTES && second->bytes == a.memory + second->place);
    CHECK(get_number(a.offer, 8) == (uint64_t)getpid() && get_number(a.offer + 16, 8) == a.n_bytes);
    CHECK(!memcmp(a.memory, a.offer + 24, TOKEN_BYTES));
#endif
    CHECK(!large->place);
    memset(large->bytes, 1, 9000);
    memset(second->bytes, 1, 3000);
    arena_give(&a, first);
    arena_give(&a, second);
    CHECK(arena_take(&a, 3000) == second && arena_take(&a, 3000) == first);
    arena_give(&a, first);
    arena_give(&a, second);
    arena_give(&a, large);
    arena_close(&a);
}

/* Nobody has bytes of another. */
static void what_is_not_lent_comes_in_large_pages_and_is_used_again(void) {
    enum { N = 40 };
    arena a;
    buffer *taken[N];
    int i;
    memset(&a, 0, sizeof a);
    for (i = 0; i < N; i++) {
        taken[i] = arena_take(&a, 1000003);
        CHECK(taken[i] && !taken[i]->place && !taken[i]->alone);
        memset(taken[i]->bytes, i, 1000003);
    }
    for (i = 0; i < N; i++)
        CHECK(taken[i]->bytes[0] == i && taken[i]->bytes[1000002] == i);
    for (i = 0; i < N; i++) arena_give(&a, taken[i]);
    CHECK(arena_take(&a, 1000003) == taken[N - 1]);
    arena_give(&a, taken[N - 1]);
    taken[0] = arena_take(&a, 3 * PIECE_BYTES + 1), taken[1] = arena_take(&a, 100);
    CHECK(taken[0] && taken[1] && taken[1]->alone);
    taken[0]->bytes[3 * PIECE_BYTES] = 7;
    arena_give(&a, taken[0]);
    arena_give(&a, taken[1]);
    arena_close(&a);
    CHECK(!a.pieces);
}

static penstock_code connect_with_keys(const char *path, const char *lines, mode_t mode, char *why) {
    penstock_link *link;
    penstock_code code;
    FILE *file = fopen(path, "w");
    fputs(lines, file);
    fclose(file);
    chmod(path, mode);
    code = penstock_connect(&link, NULL, NULL, 0);
    strcpy(why, penstock_error(link));
    penstock_free(link);
    return code;
}

static void a_key_file_that_cannot_be_used_is_told_without_its_keys(void) {
    static const char whole[] = "# keys\n"
                                "client_public = 0123456789012345678901234567890123456789\n"
                                "client_secret = abcdefghijabcdefghijabcdefghijabcdefghij\n"
                                "server_public = 9876543210987654321098765432109876543210\n";
    char path[] = "/tmp/penstock-keys-XXXXXX", why[sizeof(problem)], longer[sizeof whole + 1];
    close(mkstemp(path));
    setenv("PENSTOCK_COORDINATOR", "tcp://127.0.0.1:9", 1);
    setenv("PENSTOCK_KEYS", path, 1);
    CHECK(connect_with_keys(path, whole, 0640, why) == PENSTOCK_SYSTEM_ERROR);
    CHECK(strstr(why, "permissions 0640") && strstr(why, "chmod 600"));
    CHECK(connect_with_keys(path, strchr(whole, 'n'), 0600, why) == PENSTOCK_SYSTEM_ERROR);
    CHECK(strstr(why, "no line 'client_public = KEY'"));
    snprintf(longer, sizeof longer, "%.*s1\n", (int)sizeof whole - 2, whole);
    CHECK(connect_with_keys(path, longer, 0600, why) == PENSTOCK_SYSTEM_ERROR);
    CHECK(strstr(why, "no line 'server_public = KEY'") && !strstr(why, "98765"));
    unlink(path);
    unsetenv("PENSTOCK_COORDINATOR");
    unsetenv("PENSTOCK_KEYS");
}

static void a_parallel_program_without_its_ranks_is_told(void) {
    penstock_link *link;
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    CHECK(penstock_connect(&link, NULL, NULL, 0) == PENSTOCK_LAYOUT_ERROR);
    CHECK(strstr(penstock_error(link), "2 MPI ranks"));
    penstock_free(link);
    unsetenv("OMPI_COMM_WORLD_SIZE");
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : "../../tests/golden";
    json_is_read_as_it_is_written();
    what_is_no_json_object_is_refused();
    every_beginning_of_a_message_is_survived();
    strings_are_quoted_and_what_is_no_utf8_is_replaced();
    numbers_do_not_depend_on_the_locale();
    the_golden_answers_are_decoded(folder);
    a_steady_step_without_values_is_encoded_as_the_golden_frame(folder);
    wrong_calls_are_told_in_sentences();
    silence_is_an_error_that_names_who_was_silent();
    while_one_shard_has_no_room_the_others_are_heard();
    buffers_come_back_and_are_found_in_the_memory_that_is_lent();
    what_is_not_lent_comes_in_large_pages_and_is_used_again();
    what_is_kept_back_leaves_before_another_field_shows_its_role();
    what_is_kept_back_is_dropped_when_a_refusal_is_heard();
    what_the_solver_wrote_is_sent_from_there_and_can_be_read_until_the_next();
    a_large_step_that_lies_in_the_memory_of_the_stream_goes_alone();
    what_stays_on_this_host_is_known_by_its_address();
    what_stays_on_this_host_is_given_to_the_system_in_small_pieces();
    a_key_file_that_cannot_be_used_is_told_without_its_keys();
    a_parallel_program_without_its_ranks_is_told();
    printf(failures ? "%d checks of the C client failed\n" : "the checks of the C client passed\n",
           failures);
    return failures ? 1 : 0;
}
