/* The key file of a campaign, which PENSTOCK_KEYS names: read once by the link, put on each of its
 * sockets. No message of this client holds a key. */

#define KEY_LENGTH 40 /* characters of Z85 */

typedef struct keys {
    char *path; /* as PENSTOCK_KEYS had it; NULL: this campaign has no keys */
    char client_public[KEY_LENGTH + 2], client_secret[KEY_LENGTH + 2],
        server_public[KEY_LENGTH + 2]; /* one more, to see that a key is too long */
} keys;

static penstock_code keys_take(keys *k, FILE *file, problem *why) {
    struct { const char *name; char *key; } wanted[3];
    char line[256], name[32], value[KEY_LENGTH + 2];
    size_t i;
    wanted[0].name = "client_public", wanted[0].key = k->client_public;
    wanted[1].name = "client_secret", wanted[1].key = k->client_secret;
    wanted[2].name = "server_public", wanted[2].key = k->server_public;
    while (fgets(line, sizeof line, file)) {
        if (*line == '#' || sscanf(line, "%31s = %41s", name, value) != 2) continue;
        for (i = 0; i < 3; i++)
            if (!strcmp(name, wanted[i].name)) strcpy(wanted[i].key, value);
    }
    for (i = 0; i < 3; i++)
        if (strlen(wanted[i].key) != KEY_LENGTH)
            return failed(why, PENSTOCK_SYSTEM_ERROR,
                          "The key file %s has no line '%s = KEY' with %d characters of key. Take "
                          "the file as the campaign wrote it.", k->path, wanted[i].name, KEY_LENGTH);
    return PENSTOCK_OK;
}

static penstock_code keys_read(keys *k, problem *why) {
    const char *path = getenv("PENSTOCK_KEYS");
    struct stat about;
    penstock_code code;
    FILE *file;
    if (!path || !*path) return PENSTOCK_OK;
    if (!(k->path = copy_text(path))) return no_memory(why);
    if (!zmq_has("curve"))
        return failed(why, PENSTOCK_SYSTEM_ERROR,
                      "PENSTOCK_KEYS asks for CURVE, and this program's libzmq was built without it. "
                      "Link one that was built with libsodium, as Debian's is.");
    if (!(file = fopen(path, "r")))
        return failed(why, PENSTOCK_SYSTEM_ERROR,
                      "The key file %s cannot be read: %s. A campaign has new keys each time that it "
                      "is started or resumed; set PENSTOCK_KEYS to the file of the running one.",
                      path, strerror(errno));
    if (fstat(fileno(file), &about) || about.st_mode & 077) /* ssh refuses such a key, too */
        code = failed(why, PENSTOCK_SYSTEM_ERROR,
                      "The key file %s has the permissions %04o, so others can use it. Make it yours "
                      "alone: chmod 600 %s", path, (unsigned)about.st_mode & 07777u, path);
    else code = keys_take(k, file, why);
    fclose(file);
    return code;
}

/* Before the socket connects. */
static void keys_put_on(const keys *k, void *socket) {
    if (!k || !k->path) return;
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, k->client_public, KEY_LENGTH + 1);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->client_secret, KEY_LENGTH + 1);
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, k->server_public, KEY_LENGTH + 1);
}
