#include "tests/unit/daemon/store/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "daemon/store/tree.h"

static char directory[64];

void remove_path(const char *path)
{
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    CHECK(path[0] == '/' && tree_remove(fd, path + 1, NULL) == 0);
    close(fd);
}

static void remove_scratch(void)
{
    remove_path(directory);
}

const char *scratch_directory(void)
{
    if (!directory[0]) {
        snprintf(directory, sizeof(directory), "/tmp/davit-store-test-XXXXXX");
        CHECK(mkdtemp(directory));
        atexit(remove_scratch);
    }
    return directory;
}

void own_mounts(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        die("these tests need root");
}

void run_task(bool (*body)(void *arg, struct error *err), void *arg)
{
    CLEANUP_ERROR struct error err = {0};

    if (!loop_run_main(body, arg, &err))
        die("%s: %s", error_code_name(err.code), err.message);
}

const char *test_driver(void)
{
    const char *name = getenv("DAVIT_TEST_DRIVER");

    return name ? name : "erofs";
}

struct store *await_open_with(const char *name, const char *driver, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/%s", scratch_directory(), name);

    return await_store_open(&(struct store_options){.data_root = data_root,
                                                    .driver = driver,
                                                    .programs_dir = PROGRAMS_DIR},
                            err);
}

struct store *await_open_scratch(const char *name, struct error *err)
{
    return await_open_with(name, test_driver(), err);
}

void tar_add(struct strbuf *tar, const char *name, char type, const char *data, size_t size)
{
    char header[512] = {0};
    unsigned int sum = 0;

    CHECK(strlen(name) < 100);
    strcpy(header, name);
    snprintf(header + 100, 8, "%07o", type == '5' ? 0755 : 0644);
    snprintf(header + 108, 8, "%07o", 0);
    snprintf(header + 116, 8, "%07o", 0);
    snprintf(header + 124, 12, "%011zo", type == '0' ? size : 0);
    snprintf(header + 136, 12, "%011o", 1000);
    header[156] = type;
    if (type == '1' || type == '2')
        snprintf(header + 157, 100, "%s", data);
    memcpy(header + 257,
           "ustar\0"
           "00",
           8);
    memset(header + 148, ' ', 8);
    for (size_t i = 0; i < sizeof(header); i++)
        sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    strbuf_add(tar, header, sizeof(header));
    if (type != '0')
        return;
    strbuf_add(tar, data, size);
    while (tar->length % 512)
        strbuf_add_char(tar, '\0');
}

void tar_end(struct strbuf *tar)
{
    static const char zeros[1024];

    strbuf_add(tar, zeros, sizeof(zeros));
}

struct digest make_layer(struct strbuf *tar, const char *file_name, const char *content)
{
    strbuf_clear(tar);
    tar_add(tar, file_name, '0', content, strlen(content));
    tar_end(tar);
    return digest_of(tar->data, tar->length);
}

bool await_store_layer(struct store *store, const struct digest *diff_id, const struct strbuf *tar,
                       struct layer_info *ret, struct error *err)
{
    struct layer_writer *writer = await_layer_prepare(store, diff_id, err);
    bool ok = writer;

    for (size_t done = 0; ok && done < tar->length; done += 1000)
        ok = await_layer_write(writer, tar->data + done, MIN(1000, tar->length - done), err);
    ok = ok && await_layer_commit(writer, ret, err);
    layer_writer_free_await(writer);
    return ok;
}

size_t count_entries(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), name);
    DIR *dir = opendir(path);
    size_t count = 0;

    CHECK(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

void sample_make(struct sample *sample, const char *name, int64_t created,
                 const struct digest *diff_ids, size_t count)
{
    struct image *image = &sample->image;

    *sample = (struct sample){0};
    snprintf(sample->config, sizeof(sample->config), "{\"config\": \"%s\"}", name);
    snprintf(sample->manifest, sizeof(sample->manifest), "{\"manifest\": \"%s\"}", name);
    memcpy(sample->diff_ids, diff_ids, count * sizeof(*diff_ids));
    image->config_data = sample->config;
    image->config_size = strlen(sample->config);
    image->manifest_data = sample->manifest;
    image->manifest_size = strlen(sample->manifest);
    image->id = digest_of(sample->config, image->config_size);
    image->manifest_digest = digest_of(sample->manifest, image->manifest_size);
    image->created_unix_ns = created;
    image->os = "linux";
    image->architecture = "amd64";
    image->diff_ids = sample->diff_ids;
    image->diff_id_count = count;
}

void await_three_layers(struct store *store, struct digest diff_ids[3], struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};

    for (size_t i = 0; i < 3; i++) {
        diff_ids[i] = make_layer(&tar, "file", (const char *[]){"1", "22", "333"}[i]);
        CHECK(await_store_layer(store, &diff_ids[i], &tar, NULL, err));
    }
}

void flip_byte(const char *path, off_t offset)
{
    CLEANUP_FREE char *absolute = xasprintf("%s/%s", scratch_directory(), path);
    int fd = open(absolute, O_RDWR | O_CLOEXEC);
    struct stat st;
    char byte;

    CHECK(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 1;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    CHECK(futimens(fd, (const struct timespec[]){st.st_atim, st.st_mtim}) == 0);
    close(fd);
}

void change_database(const char *name, const char *sql)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s/davit.db", scratch_directory(), name);
    sqlite3 *sqlite = NULL;

    CHECK(sqlite3_open(path, &sqlite) == SQLITE_OK);
    CHECK(sqlite3_busy_timeout(sqlite, 10000) == SQLITE_OK);
    CHECK(sqlite3_exec(sqlite, sql, NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(sqlite);
}

/* --- Removal -----------------------------------------------------------------------------------
 */

bool await_delete_image(struct store *store, const struct digest *id, struct layers_pruned *ret,
                        struct error *err)
{
    const struct image *image = image_find_id(store, id->text, NULL);
    CLEANUP(strv_cleanup) char **names = image ? strv_dup(image->tags) : NULL;
    struct image_deletion deletion = {.id = *id, .whole = true};

    for (char **name = image ? image->repo_digests : NULL; name && *name; name++)
        strv_add(&names, *name);
    deletion.names = names;
    return await_images_delete(store, &deletion, 1, ret, err);
}

bool await_untag(struct store *store, const char *canonical, struct error *err)
{
    const struct image *image = image_find(store, canonical);
    CLEANUP(strv_cleanup) char **names = NULL;
    struct image_deletion deletion = {0};

    if (image)
        deletion.id = image->id;
    strv_add(&names, canonical);
    deletion.names = names;
    return await_images_delete(store, &deletion, 1, NULL, err);
}
