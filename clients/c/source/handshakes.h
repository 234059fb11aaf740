/* Whether the coordinator refuses this program's key: the handshakes of the asker's sockets.
 * libzmq tells nobody but a monitor; without one a wrong key looks like a campaign that is gone. */

#ifndef PENSTOCK_UNCERTAIN_S /* of broken handshakes; a restarted server breaks one at most */
#define PENSTOCK_UNCERTAIN_S 10.0
#endif
#define GREETING_S 1.0 /* to wait for each part of a server's own greeting */
#define OTHER_MECHANISM 0x11000002u /* one side has CURVE, the other has not */

enum refusal { NOT_REFUSED, OTHER_CLIENT_KEY, OTHER_SERVER_KEY, WANTS_KEYS, HAS_NO_KEYS };

typedef struct handshakes {
    void *context;
    void *socket; /* the one in use, and its monitor */
    void *monitor;
    unsigned long sockets;
    double broken_since_s; /* 0: none has failed since the last that succeeded */
    double broken_s;       /* from then until the last that failed */
    enum refusal refusal;
} handshakes;

/* Before the socket is closed: a monitor without a reader halts libzmq's own thread. */
static void handshakes_close(handshakes *h) {
    if (h->socket) zmq_socket_monitor(h->socket, NULL, 0);
    h->socket = NULL;
    if (h->monitor) zmq_close(h->monitor);
    h->monitor = NULL;
}

/* Before the socket connects. */
static void handshakes_watch(handshakes *h, void *context, void *socket) {
    static const int none = 0;
    char address[48];
    handshakes_close(h);
    h->context = context;
    h->socket = socket;
    snprintf(address, sizeof address, "inproc://handshakes-%lu", ++h->sockets);
    if (zmq_socket_monitor(socket, address,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH))
        return;
    if (!(h->monitor = zmq_socket(context, ZMQ_PAIR))) {
        handshakes_close(h);
        return;
    }
    /* A monitor whose reader is full halts libzmq's own thread, and a solver reads seldom. */
    zmq_setsockopt(h->monitor, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(h->monitor, ZMQ_LINGER, &none, sizeof none);
    zmq_connect(h->monitor, address);
}

/* Fills `name` with NULL or CURVE, as the server greets whoever has not said his own, or with "":
 * nobody greets. In a handshake a server may end the connection before its own greeting has left,
 * and an end without a greeting is also what a tunnel gives whose other side is not there. */
static void mechanism(void *context, const char *address, char name[21]) {
    static const unsigned char signature[11] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3}; /* RFC 23 */
    static const int none = 0, wait_ms = (int)(1000 * GREETING_S);
    unsigned char server[256], greeting[64];
    int id, part = 0, came = 0;
    void *line = zmq_socket(context, ZMQ_STREAM);
    memset(name, 0, 21);
    if (!line) return;
    zmq_setsockopt(line, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(line, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    if (!zmq_connect(line, address) && (id = zmq_recv(line, server, sizeof server, 0)) > 0 &&
        id <= (int)sizeof server && zmq_recv(line, greeting, 0, 0) == 0 && /* it is connected */
        zmq_send(line, server, (size_t)id, ZMQ_SNDMORE) == id &&
        zmq_send(line, signature, sizeof signature, 0) == (int)sizeof signature)
        while (came < 32 && zmq_recv(line, server, sizeof server, 0) > 0 &&
               (part = zmq_recv(line, greeting + came, sizeof greeting - (size_t)came, 0)) > 0)
            came += part;
    if (came >= 32 && came <= (int)sizeof greeting) memcpy(name, greeting + 12, 20);
    zmq_close(line);
}

static enum refusal judged(const char *theirs, int keyed) {
    if (!strcmp(theirs, "CURVE")) return keyed ? OTHER_SERVER_KEY : WANTS_KEYS;
    return keyed && !strcmp(theirs, "NULL") ? HAS_NO_KEYS : NOT_REFUSED;
}

static void handshakes_note(handshakes *h, uint16_t event, uint32_t value, int keyed, double now) {
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        h->broken_since_s = h->broken_s = 0, h->refusal = NOT_REFUSED;
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) h->refusal = OTHER_CLIENT_KEY;
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL && value == OTHER_MECHANISM)
        h->refusal = judged(keyed ? "NULL" : "CURVE", keyed);
    else if (h->broken_since_s == 0) h->broken_since_s = now;
    else h->broken_s = now - h->broken_since_s;
}

static void handshakes_read(handshakes *h, int keyed, double now) {
    unsigned char frame[64]; /* an event and its value, and then an address */
    while (h->monitor && zmq_recv(h->monitor, frame, sizeof frame, ZMQ_DONTWAIT) >= 6) {
        uint16_t event;
        uint32_t value;
        memcpy(&event, frame, sizeof event);
        memcpy(&value, frame + 2, sizeof value);
        zmq_recv(h->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
        handshakes_note(h, event, value, keyed, now);
    }
}

/* Fails once it is plain that the server does not let this program in; key_file may be NULL. Takes
 * up to twice GREETING_S when handshakes have been failing for PENSTOCK_UNCERTAIN_S. */
static penstock_code handshakes_check(handshakes *h, const char *address, const char *key_file,
                                      problem *why) {
    handshakes_read(h, key_file != NULL, now_s());
    if (!h->refusal && h->broken_s > PENSTOCK_UNCERTAIN_S) {
        char theirs[21];
        h->broken_since_s = h->broken_s = 0;
        mechanism(h->context, address, theirs);
        h->refusal = judged(theirs, key_file != NULL);
    }
    switch (h->refusal) {
    case NOT_REFUSED: return PENSTOCK_OK;
    case OTHER_CLIENT_KEY:
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s does not accept the key in %s.", address,
                      key_file ? key_file : "PENSTOCK_KEYS");
    case OTHER_SERVER_KEY:
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s ends every connection before keys are agreed: the key "
                      "in %s is of another campaign, or of an earlier session of this one.", address,
                      key_file);
    case WANTS_KEYS:
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s wants the campaign's key, and PENSTOCK_KEYS names no key "
                      "file. Agents set it; by hand, take the clients' file of the running campaign.",
                      address);
    case HAS_NO_KEYS:
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s has no keys, and PENSTOCK_KEYS names %s. Unset it.",
                      address, key_file);
    }
    return PENSTOCK_OK;
}
