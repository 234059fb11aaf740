/* Reliable, ordered delivery from this rank to one shard; owned by the link, used by simulations.
 *
 * Every message has a number; the shard acknowledges cumulatively. What is unacknowledged stays
 * in a byte-bounded window. There is one way of recovery: a shard that does not know this peer or
 * misses a number answers RESYNC; then HELLO, the announcements (plans, the open simulation) and
 * the whole window are sent again under new numbers. Repeats are dropped by the shard.
 *
 * Values that a receiver on this host reads in our memory are not sent: their places are.
 *
 * There is no thread here: libzmq's own sends, and answers are read whenever the solver calls in.
 * Deadlines count the shard's silence while this side asks, never the solver's own time.
 */

#define GLANCE_S 0.01 /* between two looks for answers, with much under way */
#define RARELY_S 0.05 /* and with little */
#define MUCH_BYTES ((size_t)1 << 22)
#define ZERO_COPY_BYTES ((size_t)1 << 16) /* below this a copy is cheaper than the bookkeeping */
/* Ahead of a receiver that reads our memory, or two messages: little enough to be in the cache when
 * it does. There is no network to fill. */
#define LENT_WINDOW_BYTES ((size_t)1 << 24)
/* What libzmq gives to the system ahead, where everything stays on this host: there is no network to
 * fill, and the system's own choice, megabytes, is out of the caches before the receiver reads it. */
#define LOCAL_BUFFER_BYTES (1 << 18)
#define LENT_BYTES 4096 /* below this the receiver is quicker with the bytes than with their place */

typedef enum announced { ANNOUNCED_PLAN, ANNOUNCED_OPEN, ANNOUNCED_INPUT } announced;

/* Said again after a HELLO; leaves once everything below `until` is acknowledged. */
typedef struct announcement {
    announced what;
    uint32_t key; /* plan or lease */
    int leaving;
    uint64_t until;
    message *said;
} announcement;

typedef struct sender {
    char *shard;
    void *socket;
    problem *why; /* of the link */
    arena *lends; /* the link's; NULL: nothing is offered */
    int lending;  /* it was accepted, for the present greeting */
    header identity; /* campaign, part and n_parts */
    size_t window_bytes;
    window unacked;
    announcement *announcements;
    size_t n_announcements, announcement_capacity;
    standings said; /* by the shard, of leases */
    uint32_t planned; /* the newest plan that was announced here; the link's */
    uint64_t next;
    uint32_t greeting;
    int welcome;
    double greeted_s, heard_s, probed_s, looked_s;
} sender;

/* One frame, copied; never blocks, as there is no high-water mark. */
static penstock_code sender_frame(sender *s, const void *bytes, size_t n_bytes, int more) {
    int sent, flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    do sent = zmq_send(s->socket, bytes, n_bytes, flags);
    while (sent < 0 && interrupted());
    return sent < 0 ? no_transport(s->why, "send to a shard") : PENSTOCK_OK;
}

/* A message without a number, and perhaps an offer of memory. */
static penstock_code sender_raw(sender *s, int kind, uint32_t step, uint64_t sequence,
                                const arena *offered) {
    unsigned char frame[HEADER_BYTES];
    header h = s->identity;
    penstock_code code;
    h.kind = kind, h.step = step, h.sequence = sequence;
    wire_encode(frame, &h, NULL, 0);
    code = sender_frame(s, frame, sizeof frame, offered != NULL);
    if (code == PENSTOCK_OK && offered) code = sender_frame(s, offered->offer, OFFER_BYTES, 0);
    return code;
}

static penstock_code sender_hello(sender *s) {
    s->greeting++;
    s->greeted_s = now_s();
    s->welcome = s->lending = 0;
    s->next = 0;
    return sender_raw(s, HELLO, s->greeting, 0, s->lends);
}

static penstock_code sender_probe(sender *s) {
    s->probed_s = now_s();
    return sender_raw(s, PROBE, 0, s->next, NULL);
}

static void kept_until_acknowledged(void *bytes, void *hint) { (void)bytes, (void)hint; }

/* A large payload is not copied: its buffer stays until it is acknowledged, and by that time libzmq
 * has done with it. One pipe carries all messages in their order, and the last has arrived. */
static penstock_code sender_payload(sender *s, const payload *p, int more) {
    int sent, flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    zmq_msg_t frame;
    if (p->n_bytes < ZERO_COPY_BYTES) return sender_frame(s, p->memory->bytes, p->n_bytes, more);
    if (zmq_msg_init_data(&frame, p->memory->bytes, p->n_bytes, kept_until_acknowledged, NULL))
        return no_memory(s->why);
    do sent = zmq_msg_send(&frame, s->socket, flags);
    while (sent < 0 && interrupted());
    if (sent >= 0) return PENSTOCK_OK;
    zmq_msg_close(&frame);
    return no_transport(s->why, "send to a shard");
}

/* Whether the shard is to find the values of all rows in our memory. */
static int sender_lends(const sender *s, const message *m) {
    size_t i, n_bytes = 0;
    if (!s->lending || !m->n_rows) return 0;
    for (i = m->n_payloads - m->n_rows; i < m->n_payloads; i++) {
        if (!m->payloads[i].memory->place) return 0;
        n_bytes += m->payloads[i].n_bytes;
    }
    return n_bytes >= LENT_BYTES;
}

/* Numbers the message and gives it to libzmq. */
static penstock_code sender_transmit(sender *s, message *m) {
    int lends = sender_lends(s, m);
    size_t i;
    penstock_code code;
    m->sequence = s->next++;
    wire_set_sequence(m->frame, m->sequence);
    wire_set_rows(m->frame, m->n_rows, lends ? LENT : 0);
    code = sender_frame(s, m->frame, m->frame_bytes, m->n_payloads > 0);
    for (i = 0; code == PENSTOCK_OK && i < m->n_payloads; i++) {
        const payload *p = &m->payloads[i];
        int more = i + 1 < m->n_payloads;
        unsigned char place[8];
        put_number(place, p->memory->place, 8);
        code = lends && i >= m->n_payloads - m->n_rows ? sender_frame(s, place, sizeof place, more)
                                                       : sender_payload(s, p, more);
    }
    return code;
}

/* Sends one message and keeps it until it is acknowledged; takes it over, NULL: no memory. */
static penstock_code sender_post(sender *s, message *m) {
    if (!m || !window_room(&s->unacked, 1)) {
        message_free(m);
        return no_memory(s->why);
    }
    window_push(&s->unacked, m);
    return sender_transmit(s, m);
}

/* Posts a message that a restarted shard must hear again before anything else. */
static penstock_code sender_announce(sender *s, announced what, uint32_t key, message *m) {
    announcement *a;
    message *kept = m ? message_again(m) : NULL;
    if (!kept || !grow((void **)&s->announcements, &s->announcement_capacity, s->n_announcements,
                       sizeof *a)) {
        message_free(kept);
        message_free(m);
        return no_memory(s->why);
    }
    a = &s->announcements[s->n_announcements++];
    memset(a, 0, sizeof *a);
    a->what = what, a->key = key, a->said = kept;
    return sender_post(s, m);
}

static void sender_expire(sender *s, uint64_t acknowledged) {
    size_t i, kept = 0;
    for (i = 0; i < s->n_announcements; i++) {
        announcement *a = &s->announcements[i];
        if (a->leaving && a->until <= acknowledged) message_free(a->said);
        else s->announcements[kept++] = *a;
    }
    s->n_announcements = kept;
}

/* Ends an announcement once all that was posted under it has been acknowledged. */
static void sender_withdraw(sender *s, announced what, uint32_t key) {
    size_t i;
    for (i = 0; i < s->n_announcements; i++) {
        announcement *a = &s->announcements[i];
        if (a->what == what && a->key == key) a->leaving = 1, a->until = s->next;
    }
    sender_expire(s, s->unacked.n ? (*window_at(&s->unacked, 0))->sequence : s->next);
}

/* Bytes that may be unacknowledged; of what is lent two messages of any size. */
static size_t sender_most_ahead(const sender *s) {
    int few = !s->lending || s->unacked.n < 2 || s->window_bytes < LENT_WINDOW_BYTES;
    return few ? s->window_bytes : LENT_WINDOW_BYTES;
}

/* Whether the window takes one more message, of any size. */
static int sender_has_room(const sender *s) {
    return s->unacked.n_bytes < sender_most_ahead(s);
}

/* Half of the window: a solver that had to wait is woken once for several steps. After each sleep
 * the caches have nothing of it. Of what is lent, one message is always room for another. */
static int sender_has_much_room(const sender *s) {
    if (s->lending && s->unacked.n == 1) return sender_has_room(s);
    return s->unacked.n_bytes <= sender_most_ahead(s) / 2;
}

static void sender_acknowledged(sender *s, uint64_t sequence) {
    while (s->unacked.n && (*window_at(&s->unacked, 0))->sequence < sequence)
        message_free(window_pop(&s->unacked));
    sender_expire(s, sequence);
}

static penstock_code sender_resynchronise(sender *s) {
    size_t n = s->unacked.n, i;
    penstock_code code;
    if (!window_room(&s->unacked, s->n_announcements)) return no_memory(s->why);
    code = sender_hello(s);
    for (i = 0; code == PENSTOCK_OK && i < s->n_announcements; i++)
        code = sender_post(s, message_again(s->announcements[i].said));
    for (i = 0; code == PENSTOCK_OK && i < n; i++) code = sender_post(s, window_pop(&s->unacked));
    for (i = 0; i < s->n_announcements; i++) s->announcements[i].until = s->next;
    return code;
}

/* more: the second frame of the answer, n_bytes long; 0 if there is none. */
static penstock_code sender_hear(sender *s, const header *h, const void *more, size_t n_bytes) {
    if (h->campaign != s->identity.campaign) return PENSTOCK_OK;
    if (h->kind == ACK) {
        if (h->step == s->greeting) {
            s->welcome = 1;
            s->lending = s->lends && (h->flags & BORROWS);
            sender_acknowledged(s, h->sequence);
        }
        return standings_grant(&s->said, more, n_bytes) ? PENSTOCK_OK : no_memory(s->why);
    }
    /* Until this greeting is answered, a RESYNC is about what was sent before the greeting. */
    if (h->kind == RESYNC && (s->welcome || now_s() - s->greeted_s > PROBE_S))
        return sender_resynchronise(s);
    if (h->kind == REFUSED && !standings_refuse(&s->said, h->lease, more, n_bytes))
        return no_memory(s->why);
    return PENSTOCK_OK;
}

/* One answer with all its frames; *came says whether there was any. */
static penstock_code sender_receive(sender *s, int *came) {
    zmq_msg_t frames[2], rest;
    header h;
    size_t n = 0;
    int more = 1, known;
    penstock_code code = PENSTOCK_OK;
    *came = 0;
    while (more) {
        zmq_msg_t *frame = n < 2 ? &frames[n] : &rest;
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, s->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(frame);
            if (interrupted()) continue;
            if (n == 0 && zmq_errno() == EAGAIN) return PENSTOCK_OK;
            code = no_transport(s->why, "read a shard's answer");
            break;
        }
        more = zmq_msg_more(frame);
        if (n < 2) n++;
        else zmq_msg_close(frame);
    }
    if (code == PENSTOCK_OK) {
        *came = 1;
        known = wire_decode(&h, zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]));
        if (known) {
            s->heard_s = now_s();
            code = sender_hear(s, &h, n > 1 ? zmq_msg_data(&frames[1]) : NULL,
                               n > 1 ? zmq_msg_size(&frames[1]) : 0);
        }
    }
    while (n) zmq_msg_close(&frames[--n]);
    return code;
}

/* Reads every answer that is here, and asks for one that is overdue; never blocks.
 *
 * A shard that was restarted hears of this part by the question: after the last message of a
 * simulation there may be no other for a long time. */
static penstock_code sender_flow(sender *s) {
    int came = 1;
    penstock_code code = PENSTOCK_OK;
    while (came && code == PENSTOCK_OK) code = sender_receive(s, &came);
    s->looked_s = now_s();
    if (code == PENSTOCK_OK && s->unacked.n) {
        double last_s = s->heard_s > s->probed_s ? s->heard_s : s->probed_s;
        if (s->looked_s - last_s > PROBE_S) code = sender_probe(s);
    }
    return code;
}

/* As `flow`, but not with every step of a fast solver: a look costs more than a small one. */
static penstock_code sender_glance(sender *s, double now) {
    double pause_s = s->unacked.n_bytes > MUCH_BYTES ? GLANCE_S : RARELY_S;
    return now < s->looked_s + pause_s ? PENSTOCK_OK : sender_flow(s);
}

/* Reads answers until ready(s, of) holds; fails when the shard stays silent. */
static penstock_code sender_wait(sender *s, int (*ready)(sender *, void *), void *of,
                                 const char *what) {
    double began = now_s(), probe_at = began + PROBE_S, now, silent_s;
    zmq_pollitem_t item = {NULL, 0, ZMQ_POLLIN, 0};
    penstock_code code = sender_flow(s);
    item.socket = s->socket;
    while (code == PENSTOCK_OK && !ready(s, of)) {
        if (zmq_poll(&item, 1, (long)(1000 * PROBE_S)) > 0) {
            code = sender_flow(s);
            if (code != PENSTOCK_OK || ready(s, of)) break;
        }
        now = now_s();
        if (now >= probe_at) {
            code = sender_probe(s);
            probe_at = now + PROBE_S;
        }
        silent_s = now - (began > s->heard_s ? began : s->heard_s);
        if (silent_s > PENSTOCK_PATIENCE_S)
            return failed(s->why, PENSTOCK_CONNECTION_LOST,
                          "Shard %s has not answered for %.0f s while this worker waited for %s. "
                          "It is restarted by its supervisor if that still runs; look at the "
                          "campaign's log.", s->shard, silent_s, what);
    }
    return code;
}

static int everything_acknowledged(sender *s, void *of) {
    (void)of;
    return !s->unacked.n;
}

/* Waits until everything that was posted is acknowledged. */
static penstock_code sender_drain(sender *s) {
    return sender_wait(s, everything_acknowledged, NULL, "acknowledgements");
}

/* Says goodbye; libzmq may still read what is unacknowledged. */
static void sender_close(sender *s) {
    int linger_ms = 1000;
    if (!s->socket) return;
    sender_raw(s, BYE, 0, 0, NULL);
    zmq_setsockopt(s->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(s->socket);
    s->socket = NULL;
}

/* Gives everything back, when it is closed and its context has ended. */
static void sender_free(sender *s) {
    size_t i;
    window_free(&s->unacked);
    for (i = 0; i < s->n_announcements; i++) message_free(s->announcements[i].said);
    standings_free(&s->said);
    free(s->announcements);
    free(s->shard);
    free(s);
}

/* A connection that has greeted; NULL after a failure. */
static sender *sender_open(void *context, const char *shard, const char *address,
                           const header *identity, size_t window_bytes, const keys *k,
                           arena *lends, problem *why) {
    static const struct { int option, value; } options[] = {
        {ZMQ_LINGER, 0}, {ZMQ_SNDHWM, 0}, {ZMQ_RCVHWM, 0}, {ZMQ_RECONNECT_IVL, 50},
        {ZMQ_RECONNECT_IVL_MAX, 1000}, {ZMQ_HEARTBEAT_IVL, 5000}, {ZMQ_HEARTBEAT_TIMEOUT, 20000},
    };
    static const int local_buffer = LOCAL_BUFFER_BYTES;
    sender *s = calloc(1, sizeof *s);
    size_t i;
    if (!s || !(s->shard = copy_text(shard))) {
        free(s);
        no_memory(why);
        return NULL;
    }
    s->why = why, s->identity = *identity, s->window_bytes = window_bytes, s->lends = lends;
    s->heard_s = s->probed_s = now_s();
    s->socket = zmq_socket(context, ZMQ_DEALER);
    for (i = 0; s->socket && i < sizeof options / sizeof *options; i++)
        zmq_setsockopt(s->socket, options[i].option, &options[i].value, sizeof(int));
    if (s->socket && stays_here(address))
        zmq_setsockopt(s->socket, ZMQ_SNDBUF, &local_buffer, sizeof local_buffer);
    if (s->socket) keys_put_on(k, s->socket);
    if (!s->socket || zmq_connect(s->socket, address)) {
        no_transport(why, "connect to a shard");
    } else if (sender_hello(s) == PENSTOCK_OK) {
        return s;
    }
    if (s->socket) zmq_close(s->socket); /* of payloads it has had none */
    sender_free(s);
    return NULL;
}
