/* Finds and reads hosts.toml below directories such as /etc/containerd/certs.d. */
#pragma once

#include "daemon/registry/hosts_file.h"

/* For "localhost:5000": the first of DIR/localhost_5000_/hosts.toml and
 * DIR/localhost:5000/hosts.toml of all directories, then of DIR/_default/hosts.toml. *ret_found is
 * false without one. Reads on the thread pool: suspends. A file that cannot be read or understood
 * is FAILED_PRECONDITION, reason INVALID_CONFIG: it must not send requests past what is configured.
 */
bool await_hosts_load(char *const *dirs, const char *domain, struct hosts_file *ret,
                      bool *ret_found, struct error *err);

/* Reads every hosts.toml below the directories, for the log: *ret_errors gets what is wrong with
 * those that cannot be used. Blocks; the caller frees the texts with strv_free. */
void hosts_dirs_check_blocking(char *const *dirs, char ***ret_errors);
