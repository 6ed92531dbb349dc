/*
 * address.h - what a ZeroMQ address says, and whether this program may use it.
 *
 * Two kinds: tcp://HOST:PORT (HOST a name, IPv4 or [IPv6], PORT 1..65535 or * to have one picked) and
 * ipc:///PATH. Secure by default: only this machine's loopback and ipc; anything else needs `keys=`, or is
 * asked for loudly with `insecure=true`.
 */
#ifndef TD_NET_ADDRESS_H
#define TD_NET_ADDRESS_H

#include <stdbool.h>

#include "common/util/error.h"

#define ADDRESS_MAX 256 /* bytes, the NUL included */

/*
 * Is this an address we may bind or connect to, beyond this machine too (`network`: with keys or
 * insecure=true)? Loopback is 127.0.0.0/8, ::1 and localhost; ipc paths
 * are absolute and fit sun_path. TD_OK or TD_EINVAL with a sentence.
 */
int address_check(const char *address, bool network, struct error *err);

/* True for ipc and tcp on this machine's loopback; false for anything else, malformed ones too. */
bool address_is_local(const char *address);

/* True for ipc. */
bool address_is_ipc(const char *address);

/*
 * The address with its host replaced (`advertise=`): tcp://0.0.0.0:5555 and 10.0.0.1 give
 * tcp://10.0.0.1:5555. TD_OK or TD_EINVAL.
 */
int address_with_host(char out[ADDRESS_MAX], const char *address, const char *host,
                      struct error *err);

/* The tcp address with another port, "*" to have one picked. TD_OK or TD_EINVAL. */
int address_with_port(char out[ADDRESS_MAX], const char *address, const char *port,
                      struct error *err);

/* Does it listen everywhere (0.0.0.0, [::], *), so that it says nothing about where to connect to? */
bool address_is_wildcard(const char *address);

/*
 * The form that goes to ZeroMQ: localhost becomes 127.0.0.1, so that no resolver can say otherwise.
 * The address has been checked. Returns out.
 */
char *address_for_zmq(char out[ADDRESS_MAX], const char *address);

#endif
