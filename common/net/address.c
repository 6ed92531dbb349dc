#include "common/net/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define TCP "tcp://"
#define IPC "ipc://"

struct parts {
    char host[ADDRESS_MAX]; /* without brackets */
    char port[8];
    bool ipv6; /* it stood in brackets */
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool plain(const char *text)
{
    for (; *text != '\0'; text++)
        if (!isgraph((unsigned char)*text))
            return false;
    return true;
}

/* Copy text[0..length-1]; false when it is empty or too long. */
static bool copy_part(char *out, size_t size, const char *text, size_t length)
{
    if (length == 0 || length >= size)
        return false;
    memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

static bool port_valid(const char *port)
{
    char *end;
    long number;

    if (strcmp(port, "*") == 0)
        return true;
    if (!isdigit((unsigned char)port[0]))
        return false;
    number = strtol(port, &end, 10);
    return *end == '\0' && number >= 1 && number <= 65535;
}

static bool host_valid(const struct parts *parts)
{
    struct in6_addr six;

    if (parts->ipv6)
        return inet_pton(AF_INET6, parts->host, &six) == 1;
    for (const char *c = parts->host; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr(".-_*", *c) == NULL)
            return false;
    return true;
}

/* tcp://HOST:PORT or tcp://[HOST]:PORT */
static bool parse_tcp(const char *address, struct parts *parts)
{
    const char *host = address + strlen(TCP), *colon = strrchr(host, ':');
    size_t length;

    memset(parts, 0, sizeof(*parts));
    if (colon == NULL)
        return false;
    length = (size_t)(colon - host);
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        parts->ipv6 = true;
        host++;
        length -= 2;
    }
    return copy_part(parts->host, sizeof(parts->host), host, length) &&
           copy_part(parts->port, sizeof(parts->port), colon + 1, strlen(colon + 1)) &&
           port_valid(parts->port) && host_valid(parts);
}

static bool host_is_loopback(const struct parts *parts)
{
    struct in_addr four;
    struct in6_addr six;

    if (parts->ipv6)
        return inet_pton(AF_INET6, parts->host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
    if (strcmp(parts->host, "localhost") == 0)
        return true;
    return inet_pton(AF_INET, parts->host, &four) == 1 && (ntohl(four.s_addr) >> 24) == 127;
}

static int check_ipc(const char *address, struct error *err)
{
    const char *path = address + strlen(IPC);
    size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

    if (path[0] != '/')
        return error_set(err, TD_EINVAL, "address %s: an ipc path must be absolute, as in ipc:///tmp/x",
                         address);
    if (strlen(path) > most)
        return error_set(err, TD_EINVAL,
                         "address %s: the path has %zu characters, a socket's may have %zu; use a "
                         "shorter folder",
                         address, strlen(path), most);
    return TD_OK;
}

int address_check(const char *address, bool network, struct error *err)
{
    struct parts parts;

    if (strlen(address) >= ADDRESS_MAX || !plain(address))
        return error_set(err, TD_EINVAL,
                         "an address has at most %d printable characters without spaces",
                         ADDRESS_MAX - 1);
    if (starts_with(address, IPC))
        return check_ipc(address, err);
    if (!starts_with(address, TCP) || !parse_tcp(address, &parts))
        return error_set(err, TD_EINVAL,
                         "bad address \"%s\": expected tcp://HOST:PORT, as in tcp://127.0.0.1:5555, "
                         "or ipc:///PATH",
                         address);
    if (!network && !host_is_loopback(&parts))
        return error_set(err, TD_EINVAL,
                         "address %s is not this machine's loopback and the connection would be "
                         "neither encrypted nor authenticated; make keys with `tdmpc2 keys DIR` and give "
                         "keys=DIR, or on a network where you trust every host insecure=true",
                         address);
    return TD_OK;
}

bool address_is_ipc(const char *address)
{
    return starts_with(address, IPC);
}

bool address_is_local(const char *address)
{
    return address_check(address, false, NULL) == TD_OK;
}

int address_with_host(char out[ADDRESS_MAX], const char *address, const char *host,
                      struct error *err)
{
    bool bare_ipv6 = strchr(host, ':') != NULL && host[0] != '[';
    char joined[2 * ADDRESS_MAX];
    struct parts parts;

    if (!starts_with(address, TCP) || !parse_tcp(address, &parts))
        return error_set(err, TD_EINVAL, "address %.200s has no host to replace", address);
    snprintf(joined, sizeof(joined), bare_ipv6 ? TCP "[%.240s]:%s" : TCP "%.240s:%s", host,
             parts.port);
    if (address_check(joined, true, NULL) != TD_OK)
        return error_set(err, TD_EINVAL, "\"%.200s\" is not a host name or an IP address", host);
    memcpy(out, joined, strlen(joined) + 1);
    return TD_OK;
}

int address_with_port(char out[ADDRESS_MAX], const char *address, const char *port,
                      struct error *err)
{
    struct parts parts;
    char joined[ADDRESS_MAX + 32];

    if (!starts_with(address, TCP) || !parse_tcp(address, &parts) || !port_valid(port))
        return error_set(err, TD_EINVAL, "address %.200s has no port that could be %.8s", address, port);
    snprintf(joined, sizeof(joined), parts.ipv6 ? TCP "[%s]:%s" : TCP "%s:%s", parts.host, port);
    if (strlen(joined) >= ADDRESS_MAX)
        return error_set(err, TD_EINVAL, "address %.200s is too long", address);
    memcpy(out, joined, strlen(joined) + 1);
    return TD_OK;
}

bool address_is_wildcard(const char *address)
{
    struct parts parts;

    return starts_with(address, TCP) && parse_tcp(address, &parts) &&
           (strcmp(parts.host, "*") == 0 || strcmp(parts.host, "0.0.0.0") == 0 ||
            strcmp(parts.host, "::") == 0);
}

char *address_for_zmq(char out[ADDRESS_MAX], const char *address)
{
    struct parts parts;

    if (starts_with(address, TCP) && parse_tcp(address, &parts) &&
        strcmp(parts.host, "localhost") == 0)
        snprintf(out, ADDRESS_MAX, TCP "127.0.0.1:%s", parts.port);
    else
        snprintf(out, ADDRESS_MAX, "%s", address);
    return out;
}
