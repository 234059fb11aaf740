/* One message of the data path with its bytes; the sender's window is made of them. */

/* A frame behind the header: the first n_bytes of its buffer. */
typedef struct payload {
    buffer *memory;
    size_t n_bytes;
} payload;

typedef struct message {
    unsigned char *frame; /* header and field table */
    size_t frame_bytes, n_rows;
    payload *payloads; /* the last n_rows belong to the rows of the table */
    size_t n_payloads;
    size_t n_bytes; /* of all that it occupies */
    arena *home;    /* where the buffers go afterwards; NULL: they are its own */
    uint64_t sequence;
} message;

static void message_free(message *m) {
    size_t i;
    if (!m) return;
    for (i = 0; i < m->n_payloads; i++) arena_give(m->home, m->payloads[i].memory);
    free(m->payloads);
    free(m->frame);
    free(m);
}

static message *message_empty(size_t frame_bytes, size_t n_rows, size_t n_payloads) {
    message *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->frame = malloc(frame_bytes);
    m->payloads = calloc(n_payloads + 1, sizeof *m->payloads);
    m->frame_bytes = m->n_bytes = frame_bytes, m->n_rows = n_rows;
    if (m->frame && m->payloads) return m;
    message_free(m);
    return NULL;
}

/* One more frame, all of a buffer that it holds from now on. */
static void message_put(message *m, buffer *memory) {
    payload *p = &m->payloads[m->n_payloads++];
    p->memory = memory, p->n_bytes = memory->n_bytes;
    m->n_bytes += p->n_bytes;
}

/* Room for one more frame; NULL: no memory. */
static unsigned char *message_add(message *m, size_t n_bytes) {
    buffer *memory = arena_take(m->home, n_bytes);
    if (!memory) return NULL;
    message_put(m, memory);
    return memory->bytes;
}

/* A message with payloads of the given lengths, to be filled by the caller; NULL: no memory. */
static message *message_new(const header *h, const entry *entries, size_t n_entries,
                            const size_t *payload_bytes, size_t n_payloads, arena *home) {
    message *m = message_empty(HEADER_BYTES + n_entries * ENTRY_BYTES, n_entries, n_payloads);
    size_t i;
    if (!m) return NULL;
    m->home = home;
    for (i = 0; i < n_payloads; i++)
        if (!message_add(m, payload_bytes[i])) {
            message_free(m);
            return NULL;
        }
    wire_encode(m->frame, h, entries, n_entries);
    return m;
}

static unsigned char *message_bytes(const message *m, size_t i) {
    return m->payloads[i].memory->bytes;
}

/* The same message once more, with its own number and memory. */
static message *message_again(const message *m) {
    message *copy = message_empty(m->frame_bytes, m->n_rows, m->n_payloads);
    size_t i;
    if (!copy) return NULL;
    memcpy(copy->frame, m->frame, m->frame_bytes);
    for (i = 0; i < m->n_payloads; i++) {
        unsigned char *bytes = message_add(copy, m->payloads[i].n_bytes);
        if (!bytes) {
            message_free(copy);
            return NULL;
        }
        memcpy(bytes, message_bytes(m, i), m->payloads[i].n_bytes);
    }
    return copy;
}
