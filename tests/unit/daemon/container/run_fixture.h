/* What tests of running containers share: a scratch root, an image of busybox in a store that is a
 * stub (its layers are directories), and checks that nothing is left. */
#pragma once

#include "tests/unit/task_test.h"

#include "daemon/container/container.h"

/* Where the test's directories are; has "data", "exec", "layer" and "bin" (first in PATH). */
extern char scratch[];
char *scratch_path(const char *format, ...) PRINTF_LIKE(1, 2); /* the caller's */

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* --- The stub of the store ----------------------------------------------------------------------
 */

/* An image with this config and these layers, bottom first; both are copied. */
struct store *stub_store_new(const char *config, char *const *layer_dirs, size_t count);
/* Fails if a mount or a hold is left. */
struct store *stub_store_free(struct store *store);
struct digest stub_image(const struct store *store);
/* The next mount of this layer fails with EIO. */
void stub_fail_mount(struct store *store, size_t layer);

/* --- Running ------------------------------------------------------------------------------------
 */

#define BUSYBOX_CONFIG                                                                            \
    "{\"config\":{\"Cmd\":[\"sh\"],\"Env\":[\"PATH=/bin\",\"FROM=image\"]},\"rootfs\":{\"type\":" \
    "\"layers\",\"diff_ids\":[]},\"os\":\"linux\",\"architecture\":\"amd64\"}"

/* An engine over the busybox image, or over layers (bottom first) and a config of the test's. */
struct world {
    struct store *store;
    struct container_engine *engine;
};
bool world_open_await(struct world *world, const char *config, char *const *layer_dirs,
                      size_t count, const char *runtime, struct error *err);
/* Closes engine and store, and checks that no mount, process, cgroup or directory is left. */
void world_done_await(struct world *world);
/* Notes the containers that exist now, for world_done_await to look for their cgroups. */
void fixture_note_ids(void);
#define WORLD(name)                                             \
    CLEANUP(world_done_await) struct world name = {NULL, NULL}; \
    assert_ok(world_open_await(&name, NULL, NULL, 0, "runc", err), err)

struct outcome {
    int exit_code;
    char *out, *err_text;
    size_t out_size;
    struct error error; /* of create or start: then exit_code is -1 */
};
void outcome_done(struct outcome *outcome);

/* options.image is filled in; remove is set. input NULL: no stdin. */
void await_run(struct world *world, struct container_options options, const char *input,
               struct outcome *ret);

/* Runs `sh -c script` and checks that it succeeds with this output. */
void await_expect(struct world *world, struct container_options options, const char *script,
                  const char *expected_out);

/* Starts `sh -c script` and returns once it has written a line. */
struct container *await_start_script(struct world *world, const char *script, struct error *err);

#define COMMAND(...) ((char *[]){__VA_ARGS__, NULL})
#define SCRIPT(text) COMMAND("sh", "-c", text)
