/* One message of the data path with its bytes; the sender's window is made of them. */

/* Payloads are libzmq's own counted buffers: a copy for the socket shares the bytes. */
typedef struct message {
    unsigned char *frame; /* header and field table */
    size_t frame_bytes, n_payloads, n_bytes;
    zmq_msg_t *payloads;
    uint64_t sequence;
} message;

static void message_free(message *m) {
    size_t i;
    if (!m) return;
    for (i = 0; i < m->n_payloads; i++) zmq_msg_close(&m->payloads[i]);
    free(m->payloads);
    free(m->frame);
    free(m);
}

/* A message with payloads of the given lengths, to be filled by the caller; NULL: no memory. */
static message *message_new(const header *h, const entry *entries, size_t n_entries,
                            const size_t *payload_bytes, size_t n_payloads) {
    message *m = calloc(1, sizeof *m);
    size_t i;
    if (!m) return NULL;
    m->frame_bytes = m->n_bytes = HEADER_BYTES + n_entries * ENTRY_BYTES;
    m->frame = malloc(m->frame_bytes);
    m->payloads = calloc(n_payloads + 1, sizeof *m->payloads);
    for (i = 0; m->frame && m->payloads && i < n_payloads; i++) {
        if (zmq_msg_init_size(&m->payloads[i], payload_bytes[i])) break;
        m->n_payloads++, m->n_bytes += payload_bytes[i];
    }
    if (!m->frame || !m->payloads || m->n_payloads < n_payloads) {
        message_free(m);
        return NULL;
    }
    wire_encode(m->frame, h, entries, n_entries);
    return m;
}

/* The same message once more, with its own number and the same payload bytes. */
static message *message_again(message *m) {
    message *copy = calloc(1, sizeof *copy);
    size_t i;
    if (!copy) return NULL;
    copy->frame_bytes = m->frame_bytes, copy->n_bytes = m->n_bytes;
    copy->frame = malloc(m->frame_bytes);
    copy->payloads = calloc(m->n_payloads + 1, sizeof *copy->payloads);
    if (!copy->frame || !copy->payloads) {
        message_free(copy);
        return NULL;
    }
    memcpy(copy->frame, m->frame, m->frame_bytes);
    for (i = 0; i < m->n_payloads; i++) {
        zmq_msg_init(&copy->payloads[i]);
        zmq_msg_copy(&copy->payloads[i], &m->payloads[i]);
        copy->n_payloads++;
    }
    return copy;
}
