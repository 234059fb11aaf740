/* Memory in large pages, for what is on its way to shards over TCP; of the arena.
 *
 * A page that is touched for the first time costs the system a trap and its zeros: in pages of 4 kB
 * a microsecond or two each, several on a virtual machine. Linux's large pages cost a fifth of it.
 */

#define LARGE_PAGES_FROM 65536 /* bytes; below, malloc has memory that was used before */
#define PIECE_BYTES ((size_t)1 << 24) /* asked for at once; only pages that are written to are there */

typedef struct piece {
    struct piece *next;
    unsigned char *bytes;
    size_t n_bytes, used;
} piece;

static piece *piece_new(size_t n_bytes) {
    piece *p = calloc(1, sizeof *p);
    void *bytes;
    if (!p) return NULL;
    bytes = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        free(p);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    (void)madvise(bytes, n_bytes, MADV_HUGEPAGE); /* where there are none they are of the usual size */
#endif
    p->bytes = bytes, p->n_bytes = n_bytes;
    return p;
}

/* Bytes that nobody else has, until the pieces are freed; NULL: no memory is left. */
static unsigned char *pieces_take(piece **pieces, size_t n_bytes) {
    piece *p = *pieces;
    if (!p || n_bytes > p->n_bytes - p->used) {
        if (!(p = piece_new(n_bytes > PIECE_BYTES ? n_bytes : PIECE_BYTES))) return NULL;
        p->next = *pieces;
        *pieces = p;
    }
    p->used += n_bytes;
    return p->bytes + p->used - n_bytes;
}

static void pieces_free(piece **pieces) {
    while (*pieces) {
        piece *p = *pieces;
        *pieces = p->next;
        munmap(p->bytes, p->n_bytes);
        free(p);
    }
}
