/* What a registry's 401 asks for: the WWW-Authenticate header (RFC 9110, 11.6.1). No I/O. */
#pragma once

#include "proto/base/util.h"

enum challenge_kind { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
    enum challenge_kind kind;
    char *realm, *service,
        *scope; /* of a Bearer challenge; realm is set there, the others may be NULL */
};
void challenge_done(struct challenge *challenge);
#define CLEANUP_CHALLENGE CLEANUP(challenge_done)

/* Takes in one header, which may hold several challenges; ret keeps the best of those it is given:
 * Bearer with a realm before Basic, the first of equals. Start with a zeroed one. What cannot be
 * understood is passed over. */
void challenge_add(struct challenge *ret, const char *header);
