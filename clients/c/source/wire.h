/* The frames of the data path, as WIRE.md defines them; used by the sender and by simulations. */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The wire is little-endian and this client copies fields as they are."
#endif

#define HEADER_BYTES 64
#define ENTRY_BYTES 16
#define MAX_FIELDS 255
#define MAX_PARTS 65535
#define STEP_BYTES 16 /* of a BUNCH: u32 step, u32 0, f64 t */

enum kind {
    HELLO = 1, PLAN, OPEN, INPUT, PART, END, FAIL, PROBE, BYE, BUNCH, ACK = 16, RESYNC, REFUSED
};

enum ack_flag { HOLD = 1, BORROWS = 2 };
enum row_flag { LENT = 1 };

typedef struct header {
    int kind;
    uint64_t campaign, simulation;
    uint32_t lease, step;
    uint16_t part, n_parts;
    uint32_t plan, geometry, flags;
    uint64_t sequence;
    double t;
} header;

/* A row of the field table. */
typedef struct entry {
    uint16_t field;
    uint8_t dtype;
    uint64_t n_bytes;
} entry;

static void put_number(unsigned char *at, uint64_t value, int n_bytes) {
    int i;
    for (i = 0; i < n_bytes; i++) at[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get_number(const unsigned char *at, int n_bytes) {
    uint64_t value = 0;
    int i;
    for (i = 0; i < n_bytes; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}

double penstock_no_time(void) {
    const uint64_t bits = 0x7FF8000000000000u; /* the same bytes everywhere, as in tests/golden */
    double t;
    memcpy(&t, &bits, sizeof t);
    return t;
}

static void put_time(unsigned char *at, double t) {
    uint64_t bits;
    if (isnan(t)) t = penstock_no_time();
    memcpy(&bits, &t, sizeof bits);
    put_number(at, bits, 8);
}

/* The header of a client's message, of HEADER_BYTES + n_entries * ENTRY_BYTES. */
static void wire_encode(unsigned char *frame, const header *h, const entry *entries,
                        size_t n_entries) {
    size_t i;
    memcpy(frame, "PNST", 4);
    frame[4] = 1;
    frame[5] = (unsigned char)h->kind;
    put_number(frame + 6, n_entries, 2);
    put_number(frame + 8, h->campaign, 8);
    put_number(frame + 16, h->simulation, 8);
    put_number(frame + 24, h->lease, 4);
    put_number(frame + 28, h->step, 4);
    put_number(frame + 32, h->part, 2);
    put_number(frame + 34, h->n_parts, 2);
    put_number(frame + 36, h->plan, 4);
    put_number(frame + 40, h->geometry, 4);
    put_number(frame + 44, h->flags, 4);
    put_number(frame + 48, h->sequence, 8);
    put_time(frame + 56, h->t);
    for (i = 0; i < n_entries; i++) {
        unsigned char *row = frame + HEADER_BYTES + i * ENTRY_BYTES;
        put_number(row, entries[i].field, 2);
        row[2] = entries[i].dtype;
        memset(row + 3, 0, 5);
        put_number(row + 8, entries[i].n_bytes, 8);
    }
}

static void wire_set_sequence(unsigned char *frame, uint64_t sequence) {
    put_number(frame + 48, sequence, 8);
}

/* What the frames of all rows hold: the values (0), or where they are to be found (LENT). */
static void wire_set_rows(unsigned char *frame, size_t n_rows, unsigned char flags) {
    size_t i;
    for (i = 0; i < n_rows; i++) frame[HEADER_BYTES + i * ENTRY_BYTES + 3] = flags;
}

/* A BUNCH is begun before anybody knows how many steps it will have. */
static void wire_set_step(unsigned char *frame, uint32_t step) { put_number(frame + 28, step, 4); }

static void wire_put_step(unsigned char *at, uint32_t step, double t) {
    put_number(at, step, 4);
    put_number(at + 4, 0, 4);
    put_time(at + 8, t);
}

/* The header of a shard's answer; 0 if the frame is none of this version. */
static int wire_decode(header *h, const unsigned char *frame, size_t n_bytes) {
    uint64_t t;
    if (n_bytes < HEADER_BYTES || memcmp(frame, "PNST", 4) || frame[4] != 1) return 0;
    if (n_bytes != HEADER_BYTES + get_number(frame + 6, 2) * ENTRY_BYTES) return 0;
    h->kind = frame[5];
    h->campaign = get_number(frame + 8, 8);
    h->simulation = get_number(frame + 16, 8);
    h->lease = (uint32_t)get_number(frame + 24, 4);
    h->step = (uint32_t)get_number(frame + 28, 4);
    h->part = (uint16_t)get_number(frame + 32, 2);
    h->n_parts = (uint16_t)get_number(frame + 34, 2);
    h->plan = (uint32_t)get_number(frame + 36, 4);
    h->geometry = (uint32_t)get_number(frame + 40, 4);
    h->flags = (uint32_t)get_number(frame + 44, 4);
    h->sequence = get_number(frame + 48, 8);
    t = get_number(frame + 56, 8);
    memcpy(&h->t, &t, sizeof t);
    return 1;
}

static size_t dtype_bytes(int dtype) {
    static const size_t sizes[] = {0, 4, 8, 4, 8, 1};
    return dtype >= PENSTOCK_F32 && dtype <= PENSTOCK_U8 ? sizes[dtype] : 0;
}
