/* Whether a connection leaves this host. */

/* Whether what goes to a tcp://IP:PORT stays on this host; names are not asked for. The own address
 * on a way is the other one's if there is no way. Nothing is sent. */
static int stays_here(const char *address) {
    static const char scheme[] = "tcp://";
    struct addrinfo hints, *there = NULL;
    struct sockaddr_storage own;
    socklen_t n_own = sizeof own;
    char host[NI_MAXHOST], ours[NI_MAXHOST], theirs[NI_MAXHOST], *port, *begin = host;
    int way, here = 0;
    if (strncmp(address, scheme, sizeof scheme - 1)) return 0;
    address += sizeof scheme - 1;
    if (strlen(address) >= sizeof host) return 0;
    strcpy(host, address);
    if (!(port = strrchr(host, ':'))) return 0;
    *port++ = 0;
    if (host[0] == '[' && port > host + 2 && port[-2] == ']') port[-2] = 0, begin++;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_DGRAM, hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    if (getaddrinfo(begin, port, &hints, &there)) return 0;
    way = socket(there->ai_family, there->ai_socktype, there->ai_protocol);
    here = way >= 0 && !connect(way, there->ai_addr, there->ai_addrlen) &&
           !getsockname(way, (struct sockaddr *)&own, &n_own) &&
           !getnameinfo((struct sockaddr *)&own, n_own, ours, sizeof ours, NULL, 0,
                        NI_NUMERICHOST) &&
           !getnameinfo(there->ai_addr, there->ai_addrlen, theirs, sizeof theirs, NULL, 0,
                        NI_NUMERICHOST) &&
           !strcmp(ours, theirs);
    if (way >= 0) close(way);
    freeaddrinfo(there);
    return here;
}
