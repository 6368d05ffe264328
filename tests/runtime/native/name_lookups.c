/* Preloaded by test_telemetry.py: prints the names of machines that the process looks up, and finds none of them. */
#include <netdb.h>
#include <stdio.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    (void)service;
    (void)hints;
    (void)found;
    fprintf(stderr, "lookup of %s\n", name);
    return EAI_FAIL;
}
