/* Preloaded by test_telemetry.py: says which machines the process wants to talk to, and that there are none. */
#include <netdb.h>
#include <stdio.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    (void)service;
    (void)hints;
    (void)found;
    fprintf(stderr, "lookup of %s\n", name);
    return EAI_FAIL;
}
