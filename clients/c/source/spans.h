/* Memory of the stream that a solver writes a field of a step into, so that nothing is copied.
 *
 * Of a large step the copy is most of what `send` costs. ADIOS2 calls such memory a span. It is
 * with the solver until it is sent, on its way until it is acknowledged, and may be read by the
 * solver until the one after it is sent: an explicit scheme needs the step before. So a field has
 * two, and those on their way.
 */

typedef struct span {
    char *field;
    buffer *next, *last; /* which the solver writes, and which it sent; NULL: there is none */
    buffer *before;      /* the last of the last `send`, which may still be read in it */
} span;

typedef struct spans {
    arena *home;
    span *all;
    size_t n, capacity;
} spans;

static span *spans_of(const spans *s, const char *field) {
    size_t i;
    for (i = 0; i < s->n; i++)
        if (!strcmp(s->all[i].field, field)) return &s->all[i];
    return NULL;
}

static span *spans_new(spans *s, const char *field) {
    span *made;
    if (!grow((void **)&s->all, &s->capacity, s->n, sizeof *s->all)) return NULL;
    made = &s->all[s->n];
    memset(made, 0, sizeof *made);
    if (!(made->field = copy_text(field))) return NULL;
    s->n++;
    return made;
}

/* The last `send` is over: nobody reads what was sent before its fields. */
static void spans_settle(spans *s) {
    size_t i;
    for (i = 0; i < s->n; i++) {
        arena_give(s->home, s->all[i].before);
        s->all[i].before = NULL;
    }
}

/* So many bytes for the next step, the same until they are sent; NULL: no memory. */
static void *spans_empty(spans *s, const char *field, size_t n_bytes) {
    span *of = spans_of(s, field);
    spans_settle(s);
    if (!of && !(of = spans_new(s, field))) return NULL;
    if (of->next && of->next->n_bytes != n_bytes) {
        arena_give(s->home, of->next);
        of->next = NULL;
    }
    if (!of->next) of->next = arena_take(s->home, n_bytes);
    return of->next ? of->next->bytes : NULL;
}

/* The solver hands these over, on whatever way they go: it reads them only, from now on. */
static void spans_sent(spans *s, const penstock_array *fields, size_t n_fields) {
    size_t i;
    spans_settle(s);
    for (i = 0; i < n_fields; i++) {
        span *of = spans_of(s, fields[i].name);
        if (!of || !of->next || of->next->bytes != fields[i].values) continue;
        of->before = of->last, of->last = of->next, of->next = NULL;
    }
}

/* The buffer that these values are all of, if they have been sent; NULL: copy them. */
static buffer *spans_claim(const spans *s, const char *field, const void *values, size_t n_bytes) {
    const span *of = spans_of(s, field);
    if (!of || !of->last || of->last->bytes != values || of->last->n_bytes != n_bytes) return NULL;
    return of->last;
}

/* The solver has done with all of them. */
static void spans_close(spans *s) {
    size_t i;
    spans_settle(s);
    for (i = 0; i < s->n; i++) {
        arena_give(s->home, s->all[i].next);
        arena_give(s->home, s->all[i].last);
        free(s->all[i].field);
    }
    free(s->all);
    memset(s, 0, sizeof *s);
}
