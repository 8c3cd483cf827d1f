/* The daemon's settings: from the command line and from a JSON file with Docker's names. Begin
 * with the table in config.c to add one. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/log.h"

#define CONFIG_DEFAULT_FILE "/etc/davit/daemon.json"
#define CONFIG_DEFAULT_DATA_ROOT "/var/lib/davit"
#define CONFIG_DEFAULT_EXEC_ROOT "/run/davit"
#define CONFIG_DEFAULT_HOSTS_DIR "/etc/davit/hosts.d"
#define CONFIG_DEFAULT_CERTS_DIR "/etc/docker/certs.d"
#define CONFIG_DEFAULT_HOST "unix:///run/davit/davit.sock"

struct config {
    char *data_root, *exec_root, *pidfile;
    char **hosts; /* "unix:///path", "fd://" */
    char **insecure_registries, **registry_mirrors;
    char **mirrors;                /* of any registry: pairs of its name and a URL */
    char **hosts_dirs, *certs_dir; /* hosts.toml and certificates of registries */
    uint64_t connect_timeout_ms, stall_timeout_ms, retry_backoff_ms; /* 0: the default */
    char *storage_driver;                                            /* NULL: the best that works */
    char *runtime; /* NULL: the first that works */
    char *group;   /* of the socket; NULL: root */
    unsigned int max_concurrent_downloads, max_concurrent_uploads, max_connections;
    uint64_t low_speed_bytes_per_s, low_speed_ms; /* a slower connection is given up */
    uint64_t limit_bytes_per_s;                   /* of all downloads; 0: none */
    uint64_t reserve_bytes;       /* what layers leave free on the disk: the smaller of this */
    unsigned int reserve_percent; /* and of this part of it */
    bool keep_compressed, drop_compressed;      /* layers' blobs; neither: as the driver wants it */
    bool resume_jobs;                           /* that a stop of the daemon interrupted */
    uint64_t scrub_interval_ms;                 /* 0: never */
    uint64_t partial_ttl_ms, partial_max_bytes; /* not 0 */
    enum log_level log_level;
    enum log_format log_format;
    bool show_help, show_version, validate;
};

/* Reads the command line, then the file (--config-file, or the default one if it exists), then
 * fills in defaults. INVALID_ARGUMENT names the flag or key: unknown, duplicate, of the wrong
 * type, or given in both places. */
bool config_load(int argc, char **argv, struct config *ret, struct error *err);
void config_done(struct config *config);

/* The text of --help; static. */
const char *config_help(void);
