#include "daemon/registry/tls.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>

#include "proto/async/await.h"

void tls_loader_done(struct tls_loader *loader)
{
    free(loader->certs_dir);
    X509_STORE_free(loader->system_roots);
    *loader = (struct tls_loader){0};
}

void tls_files_done(struct tls_files *files)
{
    X509_STORE_free(files->roots);
    free(files->roots_name);
    free(files->certificate_file);
    free(files->key_file);
    *files = (struct tls_files){0};
}

/* One load, on the thread pool; nothing of it is shared meanwhile. */
struct tls_load {
    char *dir;                        /* NULL: no directory to look at */
    const struct host_access *access; /* never changes; NULL: none */
    bool verify, need_system_roots;
    X509_STORE *own_roots, *system_roots;
    char *certificate_file, *key_file;
    struct error error;
};

static void load_done(struct tls_load *load)
{
    free(load->dir);
    X509_STORE_free(load->own_roots);
    X509_STORE_free(load->system_roots);
    free(load->certificate_file);
    free(load->key_file);
    error_done(&load->error);
}

/* A directory of links named by hash costs a lookup per certificate that is needed; the bundle
 * costs a megabyte and a half, and 40 ms. */
static bool has_hashed_roots(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir)))
        found = str_ends(entry->d_name, ".0");
    if (dir)
        closedir(dir);
    return found;
}

static X509_STORE *new_system_roots(void)
{
    X509_STORE *store = X509_STORE_new();
    const char *dir = X509_get_default_cert_dir();

    CHECK(store);
    X509_STORE_set_flags(store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
    if (!getenv("SSL_CERT_FILE") && !getenv("SSL_CERT_DIR") && has_hashed_roots(dir))
        X509_STORE_load_path(store, dir);
    else
        X509_STORE_set_default_paths(store);
    ERR_clear_error();
    return store;
}

static bool add_root(struct tls_load *load, const char *path)
{
    if (!load->own_roots)
        load->own_roots = new_system_roots();
    if (X509_STORE_load_file(load->own_roots, path) == 1)
        return true;
    ERR_clear_error();
    error_set(&load->error, ERROR_FAILED_PRECONDITION, "TLS_FAILED",
              "cannot read CA certificates from %s", path);
    return error_hint(&load->error, "it must be readable and contain certificates in PEM format");
}

static bool set_certificate(struct tls_load *load, const char *path, const char *key)
{
    if (access(path, R_OK) < 0) {
        error_set(&load->error, ERROR_FAILED_PRECONDITION, "TLS_FAILED",
                  "cannot read the client certificate %s", path);
        return error_hint(&load->error, "put it there, with its key, or do not name it");
    }
    if (access(key, R_OK) < 0) {
        error_set(&load->error, ERROR_FAILED_PRECONDITION, "TLS_FAILED",
                  "the client certificate %s has no readable key %s", path, key);
        return error_hint(&load->error, "put the key there, or remove the certificate");
    }
    load->certificate_file = xstrdup(path);
    load->key_file = xstrdup(key);
    return true;
}

static bool add_client_certificate(struct tls_load *load, const char *path)
{
    CLEANUP_FREE char *key = xasprintf("%.*s.key", (int)(strlen(path) - strlen(".cert")), path);

    if (load->certificate_file)
        return true; /* the first by name counts */
    return set_certificate(load, path, key);
}

static bool add_named_files(struct tls_load *load)
{
    const struct host_access *named = load->access;
    bool ok = true;

    for (char **path = named ? named->ca_files : NULL; ok && load->verify && path && *path; path++)
        ok = add_root(load, *path);
    if (ok && named && named->certificate_file)
        ok = set_certificate(load, named->certificate_file, named->key_file);
    return ok;
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void load_work(void *arg)
{
    struct tls_load *load = arg;
    struct dirent **entries = NULL;
    int count = load->dir ? scandir(load->dir, &entries, not_hidden, alphasort) : 0;
    bool ok = count >= 0 || errno == ENOENT || errno == ENOTDIR;

    if (!ok)
        error_set_errno(&load->error, errno, "cannot read certificates in %s", load->dir);
    ok = ok && add_named_files(load);
    for (int i = 0; i < count; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s", load->dir, entries[i]->d_name);
        if (ok && load->verify && str_ends(path, ".crt"))
            ok = add_root(load, path);
        else if (ok && str_ends(path, ".cert"))
            ok = add_client_certificate(load, path);
        free(entries[i]);
    }
    free(entries);
    if (ok && load->verify && !load->own_roots && load->need_system_roots)
        load->system_roots = new_system_roots();
}

/* The name becomes a directory's: one that a stranger's redirect brought must not lead elsewhere.
 */
static bool is_plain_name(const char *name)
{
    return name[0] != '.' && !strpbrk(name, "/%") && strlen(name) < 256;
}

bool await_tls_load(struct tls_loader *loader, const char *host_name, bool verify,
                    const struct host_access *access, struct tls_files *ret, struct error *err)
{
    CLEANUP(load_done)
    struct tls_load load = {
        .dir = loader->certs_dir && is_plain_name(host_name)
                   ? xasprintf("%s/%s", loader->certs_dir, host_name)
                   : NULL,
        .access = access,
        .verify = verify,
        .need_system_roots = !loader->system_roots,
    };
    int r;

    if ((r = await_work(load_work, &load, "reading certificates")) < 0)
        return await_error(err, r, "reading certificates");
    if (error_is_set(&load.error))
        return error_move(err, &load.error);
    if (load.system_roots && !loader->system_roots)
        loader->system_roots = TAKE(load.system_roots);
    if (load.own_roots) {
        ret->roots = TAKE(load.own_roots);
    } else if (verify) {
        X509_STORE_up_ref(loader->system_roots);
        ret->roots = loader->system_roots;
    }
    for (char **path = access && verify ? access->ca_files : NULL; path && *path; path++) {
        char *longer = xasprintf("%s:%s", ret->roots_name ? ret->roots_name : "", *path);
        free(ret->roots_name);
        ret->roots_name = longer;
    }
    ret->certificate_file = TAKE(load.certificate_file);
    ret->key_file = TAKE(load.key_file);
    return true;
}
