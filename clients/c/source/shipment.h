/* The fields of a step, or the input fields, as one rank ships them. */

typedef struct shipment {
    const penstock_link *link;
    field_role when;
    size_t n_rows, n_bytes; /* of one step */
    entry rows[MAX_FIELDS]; /* in the campaign's order */
} shipment;

static shipment shipment_of(const penstock_link *link, field_role when) {
    shipment s;
    size_t i;
    s.link = link, s.when = when, s.n_rows = s.n_bytes = 0;
    for (i = 0; i < link->n_fields; i++) {
        const field *f = &link->fields[i];
        entry *row = &s.rows[s.n_rows];
        if (f->spec.role != when) continue;
        row->field = (uint16_t)i, row->dtype = (uint8_t)f->spec.dtype;
        row->n_bytes = f->share.n_sent * dtype_bytes(f->spec.dtype);
        s.n_bytes += row->n_bytes, s.n_rows++;
    }
    return s;
}

/* The buffer of this rank's whole share, if the solver wrote it as it is sent; NULL: copy it. */
static buffer *shipment_claim(const field *f, const penstock_array *given, const spans *from,
                              size_t n_bytes) {
    if (!from || f->share.take || (int)given->dtype != f->spec.dtype) return NULL;
    return spans_claim(from, f->spec.name, given->values, n_bytes);
}

/* Whether none of it has to be copied. */
static int shipment_lies_in(const shipment *s, const penstock_array *const *chosen,
                            const spans *from) {
    size_t i;
    for (i = 0; i < s->n_rows; i++) {
        const field *f = &s->link->fields[s->rows[i].field];
        if (!shipment_claim(f, chosen[s->rows[i].field], from, s->rows[i].n_bytes)) return 0;
    }
    return 1;
}

/* An INPUT or PART with this rank's share of each chosen field: where the solver wrote it, or in
 * the one copy between its memory and the wire. chosen: by field number; from: NULL if everything
 * is to be copied. NULL: no memory. */
static message *shipment_message(const shipment *s, const header *h,
                                 const penstock_array *const *chosen, arena *home,
                                 const spans *from) {
    message *m = message_empty(HEADER_BYTES + s->n_rows * ENTRY_BYTES, s->n_rows, s->n_rows);
    size_t i;
    if (!m) return NULL;
    m->home = home;
    for (i = 0; i < s->n_rows; i++) {
        const field *f = &s->link->fields[s->rows[i].field];
        const penstock_array *given = chosen[s->rows[i].field];
        buffer *written = shipment_claim(f, given, from, s->rows[i].n_bytes);
        if (written) {
            written->holders++;
            message_put(m, written);
        } else if (message_add(m, s->rows[i].n_bytes)) {
            share_pick(&f->share, &f->spec, given, message_bytes(m, i));
        } else {
            message_free(m);
            return NULL;
        }
    }
    wire_encode(m->frame, h, s->rows, s->n_rows);
    return m;
}

/* A BUNCH with room for so many steps; h is the header of its first step. */
static message *shipment_bunch(const shipment *s, const header *h, size_t most, arena *home) {
    size_t sizes[MAX_FIELDS + 1], i;
    header all = *h;
    all.kind = BUNCH, all.t = penstock_no_time();
    sizes[0] = most * STEP_BYTES;
    for (i = 0; i < s->n_rows; i++) sizes[i + 1] = most * s->rows[i].n_bytes;
    return message_new(&all, s->rows, s->n_rows, sizes, s->n_rows + 1, home);
}

/* Writes this rank's share of each chosen field to place `at` of the frames of a BUNCH. */
static void shipment_pack(const shipment *s, const penstock_array *const *chosen, message *m,
                          size_t at) {
    size_t i, first = m->n_payloads - s->n_rows;
    for (i = 0; i < s->n_rows; i++) {
        const field *f = &s->link->fields[s->rows[i].field];
        share_pick(&f->share, &f->spec, chosen[s->rows[i].field],
                   message_bytes(m, first + i) + at * s->rows[i].n_bytes);
    }
}
