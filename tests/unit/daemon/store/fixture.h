/* A store in a directory of its own, and tar archives to put into it. */
#pragma once

#include <sys/types.h>

#include "daemon/store/store.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/strbuf.h"

/* An empty directory, removed at exit with all that is in it. */
const char *scratch_directory(void);

/* Removes a tree, given by its absolute path. */
void remove_path(const char *path);

/* From here on the test's mounts are nobody else's, and end with it. */
void own_mounts(void);

/* Runs body as the main task; a failure ends the test program. */
void run_task(bool (*body)(void *arg, struct error *err), void *arg);

/* The store at scratch_directory()/name. */
struct store *await_open_scratch(const char *name, struct error *err);

/* The same with another storage driver than the tests' (NULL: let it choose). */
struct store *await_open_with(const char *name, const char *driver, struct error *err);

/* The storage driver under test: DAVIT_TEST_DRIVER, or "erofs". */
const char *test_driver(void);

/* --- Archives ----------------------------------------------------------------------------------
 */

/* Adds an entry; type as in the tar header: '0' file, '5' directory, '2' symlink or '1' hard link
 * (to data). */
void tar_add(struct strbuf *tar, const char *name, char type, const char *data, size_t size);
void tar_end(struct strbuf *tar);

/* A layer with one file: its archive in *tar, its diff_id returned. */
struct digest make_layer(struct strbuf *tar, const char *file_name, const char *content);

/* Stores an archive as the layer diff_id. */
bool await_store_layer(struct store *store, const struct digest *diff_id, const struct strbuf *tar,
                       struct layer_info *ret, struct error *err);

/* Counts the entries of a directory below the scratch directory. */
size_t count_entries(const char *name);

/* --- Images ------------------------------------------------------------------------------------
 */

/* An image of up to three layers that are in the store. */
struct sample {
    struct image image;
    struct digest diff_ids[3];
    char config[100], manifest[100];
};
void sample_make(struct sample *sample, const char *name, int64_t created,
                 const struct digest *diff_ids, size_t count);

/* Removes an image with all its names; one of its names. ret (may be NULL): layers that went. */
bool await_delete_image(struct store *store, const struct digest *id, struct layers_pruned *ret,
                        struct error *err);
bool await_untag(struct store *store, const char *canonical, struct error *err);

/* Stores three layers with 1, 2 and 3 bytes of content. */
void await_three_layers(struct store *store, struct digest diff_ids[3], struct error *err);

/* --- Damage ------------------------------------------------------------------------------------
 */

/* Changes a byte of a file below the scratch directory, and nothing else that stat(2) shows but the
 * ctime, as a disk does that forgets. */
void flip_byte(const char *path, off_t offset);

/* Runs SQL on the database of a store at scratch_directory()/name. */
void change_database(const char *name, const char *sql);
