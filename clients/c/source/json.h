/* The JSON of the control path: a message to a tree of values, and strings back; used by the
 * asker, the link and simulations. Objects keep the order of their keys, integers their digits.
 */

#define JSON_DEPTH 64

typedef enum json_kind {
    JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT
} json_kind;

typedef struct json {
    json_kind kind;
    char *key;          /* inside an object */
    char *string;       /* of a string; of a number its digits */
    struct json *child; /* first of an array or object */
    struct json *next;  /* beside this one */
} json;

typedef struct json_reader {
    const char *at, *end;
    int depth;
} json_reader;

static void json_free(json *value) {
    while (value) { /* siblings in a loop: an object may have many */
        json *next = value->next;
        json_free(value->child);
        free(value->key);
        free(value->string);
        free(value);
        value = next;
    }
}

static void json_space(json_reader *r) {
    while (r->at < r->end && memchr(" \t\r\n", *r->at, 4)) r->at++;
}

static int json_take(json_reader *r, char expected) {
    json_space(r);
    if (r->at == r->end || *r->at != expected) return 0;
    r->at++;
    return 1;
}

static int json_hex(json_reader *r, unsigned *value) {
    int i;
    *value = 0;
    if (r->end - r->at < 4) return 0;
    for (i = 0; i < 4; i++) {
        char c = *r->at++;
        unsigned digit;
        if (c >= '0' && c <= '9') digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F') digit = (unsigned)(c - 'A') + 10;
        else return 0;
        *value = 16 * *value + digit;
    }
    return 1;
}

static size_t json_utf8(unsigned code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6), out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12), out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18), out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F)), out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* What stands behind a backslash; an unpaired surrogate becomes U+FFFD. */
static int json_escape(json_reader *r, char *out, size_t *n) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    unsigned code, low;
    char c;
    if (r->at == r->end) return 0;
    c = *r->at++;
    if (c != 'u') {
        found = c ? strchr(from, c) : NULL;
        if (!found) return 0;
        out[(*n)++] = to[found - from];
        return 1;
    }
    if (!json_hex(r, &code)) return 0;
    if (code >= 0xD800 && code < 0xDC00 && r->end - r->at >= 6 && r->at[0] == '\\' &&
        r->at[1] == 'u') {
        const char *before = r->at;
        r->at += 2;
        if (!json_hex(r, &low)) return 0;
        if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        else r->at = before;
    }
    if ((code >= 0xD800 && code < 0xE000) || code == 0) code = 0xFFFD; /* names are C strings */
    *n += json_utf8(code, out + *n);
    return 1;
}

static char *json_string(json_reader *r) {
    const char *close;
    char *out;
    size_t n = 0;
    if (!json_take(r, '"')) return NULL;
    for (close = r->at; close < r->end && *close != '"'; close++)
        if (*close == '\\') close++;
    if (close >= r->end) return NULL;
    out = malloc((size_t)(close - r->at) + 1); /* an escape is never shorter than its bytes */
    if (!out) return NULL;
    while (*r->at != '"') {
        char c = *r->at++;
        if ((unsigned char)c < 0x20 || (c == '\\' && !json_escape(r, out, &n))) {
            free(out);
            return NULL;
        }
        if (c != '\\') out[n++] = c;
    }
    r->at++;
    out[n] = 0;
    return out;
}

static json *json_value(json_reader *r);

static int json_members(json_reader *r, json *parent, char close) {
    json **last = &parent->child;
    if (json_take(r, close)) return 1;
    do {
        char *key = NULL;
        if (close == '}' && (!(key = json_string(r)) || !json_take(r, ':'))) {
            free(key);
            return 0;
        }
        *last = json_value(r);
        if (!*last) {
            free(key);
            return 0;
        }
        (*last)->key = key;
        last = &(*last)->next;
    } while (json_take(r, ','));
    return json_take(r, close);
}

static int json_word(json_reader *r, json *value) {
    static const char *const words[] = {"null", "false", "true"};
    const char *begin = r->at;
    size_t n;
    int i;
    for (i = 0; i < 3; i++) {
        n = strlen(words[i]);
        if ((size_t)(r->end - r->at) >= n && !memcmp(r->at, words[i], n)) {
            value->kind = (json_kind)i;
            r->at += n;
            return 1;
        }
    }
    while (r->at < r->end && memchr("+-.0123456789eE", *r->at, 15)) r->at++;
    n = (size_t)(r->at - begin);
    if (!n || (*begin != '-' && (*begin < '0' || *begin > '9'))) return 0;
    value->kind = JSON_NUMBER;
    value->string = malloc(n + 1);
    if (!value->string) return 0;
    memcpy(value->string, begin, n);
    value->string[n] = 0;
    return 1;
}

static json *json_value(json_reader *r) {
    json *value = calloc(1, sizeof *value);
    int good;
    json_space(r);
    if (!value || r->at == r->end || ++r->depth > JSON_DEPTH) {
        free(value);
        return NULL;
    }
    if (*r->at == '{' || *r->at == '[') {
        char close = *r->at++ == '{' ? '}' : ']';
        value->kind = close == '}' ? JSON_OBJECT : JSON_ARRAY;
        good = json_members(r, value, close);
    } else if (*r->at == '"') {
        value->kind = JSON_STRING;
        good = (value->string = json_string(r)) != NULL;
    } else {
        good = json_word(r, value);
    }
    r->depth--;
    if (good) return value;
    json_free(value);
    return NULL;
}

/* The object in a message, or NULL for anything else. */
static json *json_read(const char *bytes, size_t n_bytes) {
    json_reader r;
    json *value;
    r.at = bytes, r.end = bytes + n_bytes, r.depth = 0;
    value = json_value(&r);
    json_space(&r);
    if (value && (value->kind != JSON_OBJECT || r.at != r.end)) {
        json_free(value);
        return NULL;
    }
    return value;
}

static const json *json_get(const json *object, const char *key) {
    const json *entry = object && object->kind == JSON_OBJECT ? object->child : NULL;
    while (entry && strcmp(entry->key, key)) entry = entry->next;
    return entry;
}

static size_t json_length(const json *value) {
    size_t n = 0;
    const json *entry;
    for (entry = value ? value->child : NULL; entry; entry = entry->next) n++;
    return n;
}

static const char *json_text(const json *value, const char *otherwise) {
    return value && value->kind == JSON_STRING ? value->string : otherwise;
}

/* Digits are read as an integer, never by way of a double. */
static int64_t json_integer(const json *value, int64_t otherwise) {
    char *end;
    long long number;
    if (!value || value->kind != JSON_NUMBER) return otherwise;
    errno = 0;
    number = strtoll(value->string, &end, 10);
    return *end || errno ? otherwise : number;
}

/* strtod reads the decimal point of the locale, which a solver may have set to a comma. */
static double json_real(const json *value, double otherwise) {
    char digits[128], *end;
    const char *point = localeconv()->decimal_point;
    double number;
    size_t n;
    char *dot;
    if (!value || value->kind != JSON_NUMBER) return otherwise;
    n = strlen(value->string);
    if (n >= sizeof digits || strlen(point) != 1) return otherwise;
    memcpy(digits, value->string, n + 1);
    if ((dot = strchr(digits, '.')) != NULL) *dot = *point;
    number = strtod(digits, &end);
    return *end ? otherwise : number;
}

/* The bytes of the UTF-8 character that begins here; 0 if it is none. */
static size_t json_character(const char *at) {
    const unsigned char *c = (const unsigned char *)at;
    size_t n = c[0] < 0x80 ? 1 : c[0] < 0xC2 ? 0 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : c[0] < 0xF5 ? 4 : 0;
    size_t i;
    for (i = 1; i < n; i++)
        if ((c[i] & 0xC0) != 0x80) return 0; /* also at the end of the string */
    if (n == 3 && ((c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xED && c[1] > 0x9F))) return 0;
    if (n == 4 && ((c[0] == 0xF0 && c[1] < 0x90) || (c[0] == 0xF4 && c[1] > 0x8F))) return 0;
    return n;
}

/* Adds a string with its quotes, or null. What is no UTF-8 (a reason that was cut, or came from
 * Fortran in Latin-1) becomes a question mark: the coordinator would take it for no message. */
static void json_quote(text *t, const char *string) {
    size_t n;
    if (!string) {
        text_put(t, "null");
        return;
    }
    text_put(t, "\"");
    for (; *string; string += n ? n : 1) {
        n = json_character(string);
        if (*string == '"' || *string == '\\') text_put(t, "\\%c", *string);
        else if ((unsigned char)*string < 0x20) text_put(t, "\\u%04x", (unsigned)*string);
        else if (n) text_add(t, string, n);
        else text_put(t, "?");
    }
    text_put(t, "\"");
}
