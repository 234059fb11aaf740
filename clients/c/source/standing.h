/* What a shard has said of leases: how much of each may be sent, and why one was refused. */

typedef struct standing {
    uint32_t lease, granted; /* segments in total */
    char *refusal;
} standing;

typedef struct standings {
    standing *of;
    size_t n, capacity;
} standings;

static standing *standings_find(const standings *s, uint32_t lease) {
    size_t i;
    for (i = 0; i < s->n; i++)
        if (s->of[i].lease == lease) return &s->of[i];
    return NULL;
}

/* Made if it is new; NULL: no memory. */
static standing *standings_make(standings *s, uint32_t lease) {
    standing *found = standings_find(s, lease);
    if (found) return found;
    if (!grow((void **)&s->of, &s->capacity, s->n, sizeof *s->of)) return NULL;
    found = &s->of[s->n++];
    memset(found, 0, sizeof *found);
    found->lease = lease;
    return found;
}

/* How many segments of the lease may be sent to this shard in total. */
static uint32_t standings_granted(const standings *s, uint32_t lease) {
    const standing *of = standings_find(s, lease);
    return of ? of->granted : 0;
}

/* The reason for which the shard refused the lease, or NULL. */
static const char *standings_refusal(const standings *s, uint32_t lease) {
    const standing *of = standings_find(s, lease);
    return of ? of->refusal : NULL;
}

/* Drops what is kept about a lease that is over. */
static void standings_forget(standings *s, uint32_t lease) {
    standing *of = standings_find(s, lease);
    if (!of) return;
    free(of->refusal);
    *of = s->of[--s->n];
}

/* The second frame of REFUSED, of which the first says why; 0: no memory. */
static int standings_refuse(standings *s, uint32_t lease, const char *reason, size_t n) {
    standing *of = standings_make(s, lease);
    if (!of) return 0;
    if (of->refusal) return 1;
    if (!n) reason = "no reason given", n = strlen(reason);
    if (!(of->refusal = calloc(n + 1, 1))) return 0;
    memcpy(of->refusal, reason, n);
    return 1;
}

/* The second frame of an ACK: pairs of lease and segments; 0: no memory. */
static int standings_grant(standings *s, const unsigned char *pairs, size_t n_bytes) {
    size_t i;
    for (i = 0; i + 8 <= n_bytes; i += 8) {
        standing *of = standings_make(s, (uint32_t)get_number(pairs + i, 4));
        uint32_t granted = (uint32_t)get_number(pairs + i + 4, 4);
        if (!of) return 0;
        if (granted > of->granted) of->granted = granted;
    }
    return 1;
}

static void standings_free(standings *s) {
    size_t i;
    for (i = 0; i < s->n; i++) free(s->of[i].refusal);
    free(s->of);
}
