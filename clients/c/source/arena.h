/* Memory for what is on its way to shards, used again as soon as it is acknowledged; of the link.
 *
 * Where the campaign lets clients lend memory it lies in a sealed memfd, which a receiver on this
 * host may read: it cannot shrink under a reader, and is gone with this process however that ends.
 * The receiver finds it at /proc/PID/fd/FD and knows it by the token at its beginning; in another
 * container or on another host it doesn't, and everything goes over TCP.
 */

#define OFFER_BYTES 56 /* u64 pid, u32 descriptor, u32 0, u64 bytes, token */
#define TOKEN_BYTES 32
#define FIRST_BYTES 4096 /* the first page has the token */
#define ALIGNED_BYTES 64

typedef struct buffer {
    struct buffer *next; /* on its shelf */
    unsigned char *bytes;
    size_t n_bytes;
    unsigned holders; /* who read or write it: messages, and the solver */
    uint64_t place; /* where it begins in the memory that is lent; 0: it is not in there */
    int alone; /* its bytes are malloc's; otherwise they are part of the arena's */
} buffer;

/* Those of one size that nobody uses; what came back last is the warmest and goes out first. */
typedef struct shelf {
    size_t n_bytes;
    buffer *free;
} shelf;

typedef struct arena {
    unsigned char *memory; /* NULL: none is lent */
    size_t n_bytes, used;
    int file;
    piece *pieces; /* of memory that is not lent */
    unsigned char offer[OFFER_BYTES];
    shelf *shelves;
    size_t n_shelves, shelf_capacity;
} arena;

#if defined(MFD_ALLOW_SEALING) && defined(F_ADD_SEALS)
/* -1: the system has no such memory. Only pages that are written to are there. */
static int sealed_memory(size_t n_bytes) {
    struct rlimit most; /* beyond which ftruncate would end the program */
    int file = -1;
    if (!getrlimit(RLIMIT_FSIZE, &most) &&
        (most.rlim_cur == RLIM_INFINITY || most.rlim_cur >= n_bytes))
        file = memfd_create("penstock-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0) return -1;
    if (!ftruncate(file, (off_t)n_bytes) &&
        !fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return file;
    close(file);
    return -1;
}

/* Lends so many bytes, if the system can; the arena is new. */
static void arena_lend(arena *a, size_t n_bytes) {
    size_t size = FIRST_BYTES + n_bytes;
    int file = sealed_memory(size);
    void *memory = file < 0 ? MAP_FAILED
                            : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED || getentropy(memory, TOKEN_BYTES)) {
        if (memory != MAP_FAILED) munmap(memory, size);
        if (file >= 0) close(file);
        return;
    }
    a->memory = memory, a->n_bytes = size, a->used = FIRST_BYTES, a->file = file;
    put_number(a->offer, (uint64_t)getpid(), 8);
    put_number(a->offer + 8, (uint64_t)file, 4);
    put_number(a->offer + 12, 0, 4);
    put_number(a->offer + 16, size, 8);
    memcpy(a->offer + 24, memory, TOKEN_BYTES);
}
#else
static void arena_lend(arena *a, size_t n_bytes) { (void)a, (void)n_bytes; }
#endif

static void buffer_free(buffer *b) {
    if (!b) return;
    if (b->alone) free(b->bytes);
    free(b);
}

/* Memory that nobody else has; in the arena as long as it has room. NULL: none is left. */
static buffer *buffer_new(arena *a, size_t n_bytes) {
    buffer *b = calloc(1, sizeof *b);
    size_t aligned = (n_bytes / ALIGNED_BYTES + 1) * ALIGNED_BYTES;
    if (!b) return NULL;
    b->n_bytes = n_bytes;
    if (a && a->memory && aligned <= a->n_bytes - a->used) {
        b->place = a->used, b->bytes = a->memory + a->used;
        a->used += aligned;
        return b;
    }
    b->alone = !a || n_bytes < LARGE_PAGES_FROM;
    b->bytes = b->alone ? malloc(aligned) : pieces_take(&a->pieces, aligned);
    if (b->bytes) return b;
    free(b);
    return NULL;
}

static shelf *arena_shelf(arena *a, size_t n_bytes) {
    size_t i;
    for (i = 0; i < a->n_shelves; i++)
        if (a->shelves[i].n_bytes == n_bytes) return &a->shelves[i];
    if (!grow((void **)&a->shelves, &a->shelf_capacity, a->n_shelves, sizeof *a->shelves))
        return NULL;
    a->shelves[a->n_shelves].n_bytes = n_bytes;
    a->shelves[a->n_shelves].free = NULL;
    return &a->shelves[a->n_shelves++];
}

/* A buffer to write to, of arbitrary content and with one holder; NULL: no memory. a: NULL for one
 * of its own. */
static buffer *arena_take(arena *a, size_t n_bytes) {
    shelf *of = a ? arena_shelf(a, n_bytes) : NULL;
    buffer *b = of ? of->free : NULL;
    if (b) of->free = b->next;
    else b = buffer_new(a, n_bytes);
    if (b) b->holders = 1;
    return b;
}

/* One holder has done with the buffer, which is used again when nobody has it any more. */
static void arena_give(arena *a, buffer *b) {
    shelf *of;
    if (!b || --b->holders) return;
    of = a ? arena_shelf(a, b->n_bytes) : NULL;
    if (!of) {
        buffer_free(b);
        return;
    }
    b->next = of->free;
    of->free = b;
}

/* No receiver finds it any more, and nothing of it is in use. */
static void arena_close(arena *a) {
    size_t i;
    for (i = 0; i < a->n_shelves; i++)
        while (a->shelves[i].free) {
            buffer *b = a->shelves[i].free;
            a->shelves[i].free = b->next;
            buffer_free(b);
        }
    free(a->shelves);
    pieces_free(&a->pieces);
    if (a->memory) {
        munmap(a->memory, a->n_bytes);
        close(a->file);
    }
    memset(a, 0, sizeof *a);
}
