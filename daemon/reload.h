/* SIGHUP: reads the configuration anew and applies what can change while the daemon runs. */
#pragma once

#include "daemon/config.h"
#include "daemon/image/push.h"
#include "daemon/registry/registry.h"
#include "daemon/transfer/transfer.h"

/* The part of the configuration that the registry client takes; borrowed from it. */
struct registry_options registry_options_of(const struct config *config);

/* INVALID_ARGUMENT names the mirror or insecure registry that makes no sense. */
bool config_check_registries(const struct config *config, struct error *err);

struct reload_options {
    int argc; /* the daemon's own command line: what is in it is not reloaded */
    char **argv;
    struct config *config; /* of the running daemon: what is applied is changed in it */
    struct registry_client *registry;
    struct transfer_table *transfers;
    struct push_engine *push;
};

struct reload;
struct reload *reload_new(const struct reload_options *options);
struct reload *reload_free_await(struct reload *reload); /* waits for one that runs */

/* Starts a task that does it; one that runs already is followed by another. Docker's reloadable
 * keys, as far as davit has them, and its own of registries. A configuration that is not valid
 * changes nothing and is logged; what has changed is logged and systemd is told. */
void reload_begin(struct reload *reload);
