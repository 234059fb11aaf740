/* Whether the coordinator refuses this program's key: the handshakes of the asker's sockets.
 * libzmq tells nobody but a monitor; without one a wrong key looks like a campaign that is gone. */

#ifndef PENSTOCK_UNCERTAIN_S /* of broken handshakes; a restarted server breaks one at most */
#define PENSTOCK_UNCERTAIN_S 10.0
#endif
#define OTHER_MECHANISM 0x11000002u /* one side has CURVE, the other has not */

typedef struct handshakes {
    void *socket; /* the one in use, and its monitor */
    void *monitor;
    unsigned long sockets;
    double broken_since_s; /* 0: none has failed since the last that succeeded */
    uint16_t refusal;      /* the event that leaves no doubt; 0: none */
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

static void handshakes_note(handshakes *h, uint16_t event, uint32_t value, double now) {
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) h->broken_since_s = 0, h->refusal = 0;
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ||
             (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL && value == OTHER_MECHANISM))
        h->refusal = event;
    else if (h->broken_since_s == 0) h->broken_since_s = now;
}

static void handshakes_read(handshakes *h, double now) {
    unsigned char frame[64]; /* an event and its value, and then an address */
    while (h->monitor && zmq_recv(h->monitor, frame, sizeof frame, ZMQ_DONTWAIT) >= 6) {
        uint16_t event;
        uint32_t value;
        memcpy(&event, frame, sizeof event);
        memcpy(&value, frame + 2, sizeof value);
        zmq_recv(h->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
        handshakes_note(h, event, value, now);
    }
}

/* Fails once it is plain that the server does not let this program in; key_file may be NULL. */
static penstock_code handshakes_check(handshakes *h, const char *address, const char *key_file,
                                      problem *why) {
    double now = now_s();
    handshakes_read(h, now);
    if (h->refusal == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s does not accept the key in %s.", address,
                      key_file ? key_file : "PENSTOCK_KEYS");
    if (h->refusal && key_file)
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s has no keys, and PENSTOCK_KEYS names %s. Unset it.",
                      address, key_file);
    if (h->refusal)
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s wants the campaign's key, and PENSTOCK_KEYS names no key "
                      "file. Agents set it; by hand, take the clients' file of the running campaign.",
                      address);
    if (key_file && h->broken_since_s > 0 && now - h->broken_since_s > PENSTOCK_UNCERTAIN_S)
        return failed(why, PENSTOCK_CONNECTION_LOST,
                      "The coordinator at %s ends every connection before keys are agreed: the key "
                      "in %s is of another campaign, or of an earlier session of this one.", address,
                      key_file);
    return PENSTOCK_OK;
}
