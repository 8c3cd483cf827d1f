/* A store in a directory of its own, and tar archives to put into it. */
#pragma once

#include "daemon/store/store.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/strbuf.h"

/* An empty directory, removed at exit with all that is in it. */
const char *scratch_directory(void);

/* Removes a tree, given by its absolute path. */
void remove_path(const char *path);

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

/* Adds an entry; type as in the tar header: '0' file, '5' directory, '2' symlink (to data). */
void tar_add(struct strbuf *tar, const char *name, char type, const char *data, size_t size);
void tar_end(struct strbuf *tar);

/* A layer with one file: its archive in *tar, its diff_id returned. */
struct digest make_layer(struct strbuf *tar, const char *file_name, const char *content);

/* Stores an archive as the layer diff_id. */
bool await_store_layer(struct store *store, const struct digest *diff_id, const struct strbuf *tar,
                       struct layer_info *ret, struct error *err);

/* Counts the entries of a directory below the scratch directory. */
size_t count_entries(const char *name);
