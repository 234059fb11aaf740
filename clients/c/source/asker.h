/* One line to the coordinator: a request at a time, repeated until it is answered; owned by the
 * link, used on rank 0. A restarted coordinator is found again without the caller's doing. */

#define LARGEST_CONTROL_BYTES (1 << 20)
#define RESEND_S 1.0
#define RESENDS_PER_SOCKET 3 /* unanswered, before a fresh socket: a half-open line never heals */

typedef struct asker {
    void *context, *socket;
    const char *address, *worker; /* of the link */
    const keys *keys;             /* of the link */
    handshakes handshakes;
    int64_t number;
    double connected_s, sent_s;
    double waiting_since_s; /* below 0: everything that was asked was answered */
} asker;

static void asker_close(asker *a) {
    handshakes_close(&a->handshakes);
    if (a->socket) zmq_close(a->socket);
    a->socket = NULL;
}

static penstock_code asker_connect(asker *a, problem *why) {
    static const struct { int option, value; } options[] = {
        {ZMQ_LINGER, 0}, {ZMQ_RECONNECT_IVL, 100}, {ZMQ_RECONNECT_IVL_MAX, 1000},
    };
    int64_t largest = LARGEST_CONTROL_BYTES;
    size_t i;
    asker_close(a);
    a->connected_s = now_s();
    if (!(a->socket = zmq_socket(a->context, ZMQ_DEALER)))
        return no_transport(why, "open a socket");
    for (i = 0; i < sizeof options / sizeof *options; i++)
        zmq_setsockopt(a->socket, options[i].option, &options[i].value, sizeof(int));
    zmq_setsockopt(a->socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    keys_put_on(a->keys, a->socket);
    handshakes_watch(&a->handshakes, a->context, a->socket);
    if (zmq_connect(a->socket, a->address)) return no_transport(why, "connect to the coordinator");
    return PENSTOCK_OK;
}

static penstock_code asker_send(asker *a, const text *request, problem *why) {
    double now = now_s();
    double since_s = a->connected_s > a->waiting_since_s ? a->connected_s : a->waiting_since_s;
    if (handshakes_check(&a->handshakes, a->address, a->keys->path, why) != PENSTOCK_OK)
        return why->code;
    if (!a->socket || now - since_s >= RESENDS_PER_SOCKET * RESEND_S) {
        penstock_code code = asker_connect(a, why);
        if (code != PENSTOCK_OK) return code;
    }
    a->sent_s = now;
    /* A full pipe is no error: a later repetition has a fresh socket. */
    if (zmq_send(a->socket, request->bytes, request->length, ZMQ_DONTWAIT) < 0 &&
        zmq_errno() != EAGAIN && zmq_errno() != EINTR)
        return no_transport(why, "send to the coordinator");
    return PENSTOCK_OK;
}

/* Reads messages until one answers the request; *found says whether one did. */
static penstock_code asker_read(asker *a, text *answer, int *found, problem *why) {
    *found = 0;
    while (!*found) {
        zmq_msg_t frame;
        json *reply;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) < 0) {
            int code = zmq_errno();
            zmq_msg_close(&frame);
            return code == EAGAIN || code == EINTR ? PENSTOCK_OK
                                                   : no_transport(why, "read the coordinator");
        }
        reply = json_read(zmq_msg_data(&frame), zmq_msg_size(&frame));
        /* Anything else is late, to a request that was given up. */
        if (reply && json_integer(json_get(reply, "request"), -1) == a->number) {
            *found = 1;
            text_add(answer, zmq_msg_data(&frame), zmq_msg_size(&frame));
        }
        json_free(reply);
        zmq_msg_close(&frame);
    }
    a->waiting_since_s = -1.0;
    return answer->broken ? no_memory(why) : PENSTOCK_OK;
}

static penstock_code asker_wait(asker *a, const text *request, const char *kind, double timeout_s,
                                text *answer, problem *why) {
    double deadline = now_s() + timeout_s;
    penstock_code code = asker_send(a, request, why);
    while (code == PENSTOCK_OK) {
        zmq_pollitem_t item = {NULL, 0, ZMQ_POLLIN, 0};
        double now = now_s(), due = a->sent_s + RESEND_S < deadline ? a->sent_s + RESEND_S : deadline;
        int found;
        item.socket = a->socket;
        zmq_poll(&item, 1, due > now ? (long)(1000 * (due - now)) + 1 : 0);
        if ((code = asker_read(a, answer, &found, why)) != PENSTOCK_OK || found) break;
        now = now_s();
        if (now >= deadline)
            return failed(why, PENSTOCK_CONNECTION_LOST,
                          "The coordinator at %s did not answer '%s' of worker/%s within %g s. Is "
                          "the campaign still running?", a->address, kind, a->worker, timeout_s);
        if (now - a->sent_s >= RESEND_S) code = asker_send(a, request, why);
    }
    return code;
}

/* Asks and waits. body: further members of the request, begun with a comma, or "". The answer is
 * the message as it came. Fails after timeout_s; the request may have been heard nevertheless. */
static penstock_code asker_ask(asker *a, const char *kind, const char *body, double timeout_s,
                               text *answer, problem *why) {
    text request = {NULL, 0, 0, 0}, name = {NULL, 0, 0, 0};
    penstock_code code;
    json_quote(&name, a->worker);
    if (name.broken) return no_memory(why);
    text_put(&request, "{\"kind\":\"%s\",\"request\":%lld", kind, (long long)++a->number);
    text_put(&request, ",\"from\":\"worker/");
    text_add(&request, name.bytes + 1, name.length - 1);
    text_put(&request, ",\"worker\":");
    text_add(&request, name.bytes, name.length);
    text_free(&name);
    text_add(&request, body, strlen(body));
    text_put(&request, "}");
    if (a->waiting_since_s < 0) a->waiting_since_s = now_s();
    if (request.broken) code = no_memory(why);
    else if (request.length > LARGEST_CONTROL_BYTES)
        code = failed(why, PENSTOCK_LAYOUT_ERROR,
                      "A control message may have at most %d bytes, and this one ('%s') has %zu. "
                      "Send less at once.", LARGEST_CONTROL_BYTES, kind, request.length);
    else code = asker_wait(a, &request, kind, timeout_s, answer, why);
    text_free(&request);
    return code;
}
