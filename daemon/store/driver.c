#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/store/internal.h"
#include "daemon/store/tree.h"
#include "proto/base/strbuf.h"

/* The best first. */
static const struct layer_driver *const drivers[] = {&erofs_driver, &directory_driver};

static const struct layer_driver *driver_find(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(drivers); i++) {
        if (str_eq(name, drivers[i]->name))
            return drivers[i];
    }
    return NULL;
}

bool driver_name_check(const char *name, struct error *err)
{
    if (!name || driver_find(name))
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "UNKNOWN_STORAGE_DRIVER",
              "there is no storage driver \"%s\"", name);
    return error_hint(err, "known drivers: %s, %s", drivers[0]->name, drivers[1]->name);
}

/* Tries it in a directory of its own. */
static bool probe(struct store *store, const struct layer_driver *driver, struct error *err)
{
    static const char name[] = "probe";
    CLEANUP_CLOSE int dir_fd = -1;
    bool ok;

    if (mkdirat(store->tmp_fd, name, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "cannot create a directory");
    dir_fd = openat(store->tmp_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ok = dir_fd >= 0 ? driver->probe(dir_fd, err)
                     : error_set_errno(err, errno, "cannot open a directory");
    tree_remove(store->tmp_fd, name, NULL);
    return ok;
}

static bool use(struct store *store, const struct layer_driver *driver, const char *reason)
{
    free(store->driver_reason);
    store->driver_reason = xstrdup(reason);
    store->driver = driver;
    return true;
}

/* One that has to be used: by order, or because the layers are its own. On a full disk it cannot be
 * tried, and what is there has to be removed all the same. */
static bool use_given(struct store *store, const struct layer_driver *driver, const char *reason,
                      bool has_layers, struct error *err)
{
    CLEANUP_ERROR struct error why = {0};

    if (probe(store, driver, &why) || error_is(&why, "NO_SPACE"))
        return use(store, driver, reason);
    error_set(err, ERROR_FAILED_PRECONDITION, "STORAGE_DRIVER_UNSUPPORTED",
              "the storage driver %s (%s) does not work in the data root %s: %s", driver->name,
              reason, store->data_root, why.message);
    /* No other driver may touch its layers. */
    return driver->needs && error_hint(err, "%s: %s", driver->needs,
                                       has_layers ? "use another data root and pull again"
                                                  : "use --storage-driver directory");
}

static bool use_best(struct store *store, struct error *err)
{
    CLEANUP_STRBUF struct strbuf reason = {0};

    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
        CLEANUP_ERROR struct error why = {0};
        if (!probe(store, drivers[i], &why)) {
            if (error_is(&why, "NO_SPACE")) {
                error_move(err, &why);
                return error_prefix(err, "cannot try the storage drivers in the data root %s",
                                    store->data_root);
            }
            strbuf_addf(&reason, "%s does not work here: %s", drivers[i]->name, why.message);
            if (drivers[i]->needs)
                strbuf_addf(&reason, " (%s)", drivers[i]->needs);
            strbuf_add_str(&reason, "; ");
            continue;
        }
        strbuf_add_str(&reason, drivers[i]->summary);
        return use(store, drivers[i], reason.data);
    }
    return error_set(err, ERROR_FAILED_PRECONDITION, "STORAGE_DRIVER_UNSUPPORTED",
                     "no storage driver works in the data root %s: %s", store->data_root,
                     reason.data);
}

bool driver_choose(struct store *store, const char *forced, const char *recorded, bool has_layers,
                   struct error *err)
{
    const struct layer_driver *forced_driver = driver_find(forced);
    const struct layer_driver *owner = has_layers ? driver_find(recorded) : NULL;

    if (has_layers && !owner) {
        return error_set(err, ERROR_FAILED_PRECONDITION, "STORAGE_DRIVER_MISMATCH",
                         "the data root %s was written by the storage driver \"%s\", which this "
                         "davitd does not have",
                         store->data_root, recorded);
    }
    if (owner && forced_driver && owner != forced_driver) {
        error_set(err, ERROR_FAILED_PRECONDITION, "STORAGE_DRIVER_MISMATCH",
                  "the layers in the data root %s were written by the storage driver %s, not %s",
                  store->data_root, owner->name, forced_driver->name);
        return error_hint(err, "use --storage-driver %s, or another data root and pull again",
                          owner->name);
    }
    if (forced_driver)
        return use_given(store, forced_driver, "as configured", owner != NULL, err);
    if (owner)
        return use_given(store, owner, "the layers in the data root are its own", true, err);
    return use_best(store, err);
}
