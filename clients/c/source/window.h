/* The messages of a sender that are unacknowledged, oldest first. */

typedef struct window {
    message **ring; /* n of them from `first` on */
    size_t first, n, capacity, n_bytes;
} window;

static message **window_at(const window *w, size_t i) {
    return &w->ring[(w->first + i) % w->capacity];
}

/* Makes room for n more messages; 0: no memory. */
static int window_room(window *w, size_t n) {
    size_t capacity = w->capacity ? w->capacity : 64, i;
    message **larger;
    while (capacity < w->n + n) capacity *= 2;
    if (capacity == w->capacity) return 1;
    if (!(larger = malloc(capacity * sizeof(message *)))) return 0;
    for (i = 0; i < w->n; i++) larger[i] = *window_at(w, i);
    free(w->ring);
    w->ring = larger, w->capacity = capacity, w->first = 0;
    return 1;
}

/* Where there is room. */
static void window_push(window *w, message *m) {
    *window_at(w, w->n++) = m;
    w->n_bytes += m->n_bytes;
}

/* Takes the oldest message out. */
static message *window_pop(window *w) {
    message *m = *window_at(w, 0);
    w->n_bytes -= m->n_bytes;
    w->first = (w->first + 1) % w->capacity;
    w->n--;
    return m;
}

static void window_free(window *w) {
    while (w->n) message_free(window_pop(w));
    free(w->ring);
}
