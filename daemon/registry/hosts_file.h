/* hosts.toml, as containerd documents it (docs/hosts.md): where the content of a registry's
 * namespace may be had. A parser without I/O. */
#pragma once

#include "proto/base/error.h"

#define HOSTS_FILE_MAX_HOSTS 32

/* How to speak to a host: shared by all who do, counted, never changed once it is made. */
struct host_access {
    unsigned int references;
    bool skip_verify;                  /* any certificate will do */
    char **ca_files;                   /* roots to add; NULL: none */
    char *certificate_file, *key_file; /* ours; NULL: none */
    char **headers;                    /* "Name: value", for this host only; NULL: none */
    char *proxy;                       /* NULL: as the environment has it */
    uint64_t connect_timeout_ms;       /* 0: as always */
};
struct host_access *host_access_ref(struct host_access *access);   /* NULL gives NULL */
struct host_access *host_access_unref(struct host_access *access); /* returns NULL */

struct host_entry {
    char *base;        /* "https://mirror.example.com/v2"; NULL: the registry itself */
    char *name;        /* "mirror.example.com"; NULL with it */
    unsigned int uses; /* enum source_use */
    struct host_access *access;
};

struct hosts_file {
    struct host_entry *hosts; /* the order is the one to ask in */
    size_t count;
    struct host_entry server; /* the last to be asked */
};
void hosts_file_done(struct hosts_file *file);
#define CLEANUP_HOSTS_FILE CLEANUP(hosts_file_done)

/* path is the file's: for errors, and for what is relative to it. INVALID_ARGUMENT, reason
 * INVALID_CONFIG, says PATH:LINE and why. Keys that are not known are ignored, as in containerd. */
bool hosts_file_parse(const char *text, size_t size, const char *path, struct hosts_file *ret,
                      struct error *err);
