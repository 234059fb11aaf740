/* What all parts of the C client stand on: errors as sentences, growing text, time. */

#define PROBE_S 1.0
#ifndef PENSTOCK_PATIENCE_S /* tests of silence set a shorter one */
#define PENSTOCK_PATIENCE_S 120.0
#endif

typedef struct problem {
    penstock_code code;
    char text[1024];
} problem;

#ifdef __GNUC__
#define LIKE_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#define LIKE_PRINTF(at, first)
#endif

LIKE_PRINTF(3, 4)
static penstock_code failed(problem *why, penstock_code code, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(why->text, sizeof why->text, format, values);
    va_end(values);
    why->code = code;
    return code;
}

static penstock_code no_memory(problem *why) {
    return failed(why, PENSTOCK_SYSTEM_ERROR, "The memory of this process is exhausted.");
}

static penstock_code no_transport(problem *why, const char *what) {
    return failed(why, PENSTOCK_SYSTEM_ERROR, "libzmq could not %s: %s.", what,
                  zmq_strerror(zmq_errno()));
}

/* Whether a call of libzmq that failed is to be made again: a signal came, and nothing was done. */
static int interrupted(void) { return zmq_errno() == EINTR; }

/* Makes room for one more element of a growing array; 0 when there is no memory. */
static int grow(void **array, size_t *capacity, size_t used, size_t element_bytes) {
    size_t wanted = *capacity ? 2 * *capacity : 8;
    void *larger;
    if (used < *capacity) return 1;
    larger = realloc(*array, wanted * element_bytes);
    if (!larger) return 0;
    *array = larger;
    *capacity = wanted;
    return 1;
}

static char *copy_text(const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = malloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

/* A text that grows; `broken` says that memory ran out, so that only the end need be checked. */
typedef struct text {
    char *bytes; /* always ended by a 0 once something was added */
    size_t length, capacity;
    int broken;
} text;

static void text_add(text *t, const char *bytes, size_t n) {
    size_t wanted = t->length + n + 1;
    if (t->broken) return;
    if (wanted > t->capacity) {
        size_t capacity = wanted > 2 * t->capacity ? wanted : 2 * t->capacity;
        char *larger = realloc(t->bytes, capacity);
        if (!larger) {
            t->broken = 1;
            return;
        }
        t->bytes = larger;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->length, bytes, n);
    t->length += n;
    t->bytes[t->length] = 0;
}

LIKE_PRINTF(2, 3)
static void text_put(text *t, const char *format, ...) {
    char piece[512];
    int n;
    va_list values;
    va_start(values, format);
    n = vsnprintf(piece, sizeof piece, format, values);
    va_end(values);
    if (n > 0) text_add(t, piece, (size_t)n < sizeof piece ? (size_t)n : sizeof piece - 1);
}

static void text_free(text *t) {
    free(t->bytes);
    memset(t, 0, sizeof *t);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_s(double seconds) {
    struct timespec pause;
    pause.tv_sec = (time_t)seconds;
    pause.tv_nsec = (long)(1e9 * (seconds - (double)pause.tv_sec));
    nanosleep(&pause, NULL);
}
