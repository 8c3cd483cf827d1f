#include "daemon/container/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "daemon/container/kept.h"
#include "daemon/container/merge.h"
#include "daemon/container/spec.h"
#include "daemon/registry/manifest.h"
#include "proto/base/strbuf.h"

#define HOST_FILE_MAX_BYTES MIB
#define SHORT_ID_LENGTH 12

/* Docker's, for a container without an address of its own. */
static const char default_hosts[] = "127.0.0.1\tlocalhost\n"
                                    "::1\tlocalhost ip6-localhost ip6-loopback\n"
                                    "fe00::\tip6-localnet\n"
                                    "ff00::\tip6-mcastprefix\n"
                                    "ff02::1\tip6-allnodes\n"
                                    "ff02::2\tip6-allrouters\n";

/* Paths of the container's own files of /etc. */
struct etc_files {
    char *hosts, *hostname, *resolv_conf;
};

static void etc_files_done(struct etc_files *files)
{
    free(files->hosts);
    free(files->hostname);
    free(files->resolv_conf);
}

/* --- Files of /etc ---------------------------------------------------------------------------- */

static bool copy_host_file(const char *from, const char *fallback, const char *to,
                           struct error *err)
{
    CLEANUP(strbuf_done) struct strbuf text = {0};
    CLEANUP_CLOSE int fd = open(from, O_RDONLY | O_CLOEXEC);
    char buffer[4096];
    ssize_t n = -1;

    while (fd >= 0 && text.length < HOST_FILE_MAX_BYTES &&
           (n = read(fd, buffer, sizeof(buffer))) > 0)
        strbuf_add(&text, buffer, (size_t)n);
    return write_file(to, n < 0 ? fallback : strbuf_text(&text), 0644, err);
}

/* They lie on disk and not below the exec root: the container may write to them as much as it
 * likes. */
static bool write_etc_files(const struct preparation *job, const char *hostname,
                            struct etc_files *ret, struct error *err)
{
    CLEANUP_FREE char *hostname_line = xasprintf("%s\n", hostname);
    const char *dir = job->paths->data_dir;
    bool host = job->options->network == CONTAINER_NETWORK_HOST;

    ret->hosts = xasprintf("%s/hosts", dir);
    ret->hostname = xasprintf("%s/hostname", dir);
    ret->resolv_conf = xasprintf("%s/resolv.conf", dir);
    return (host ? copy_host_file("/etc/hosts", default_hosts, ret->hosts, err)
                 : write_file(ret->hosts, default_hosts, 0644, err)) &&
           write_file(ret->hostname, hostname_line, 0644, err) &&
           copy_host_file("/etc/resolv.conf", "", ret->resolv_conf, err);
}

static char *choose_hostname(const struct preparation *job, struct error *err)
{
    char name[256] = "";

    if (!str_empty(job->options->hostname))
        return check_hostname(job->options->hostname, err) ? xstrdup(job->options->hostname) : NULL;
    if (job->options->network == CONTAINER_NETWORK_HOST && gethostname(name, sizeof(name) - 1) == 0)
        return xstrdup(name);
    return xstrndup(job->id, SHORT_ID_LENGTH);
}

/* --- User ------------------------------------------------------------------------------------- */

static bool resolve_user(int root_fd, const char *text, struct exec_user *ret, struct error *err)
{
    CLEANUP_FREE char *passwd = NULL;
    CLEANUP_FREE char *group = NULL;
    size_t passwd_size, group_size;

    return rootfs_read_file(root_fd, "/etc/passwd", USER_FILE_MAX_BYTES, &passwd, &passwd_size,
                            err) &&
           rootfs_read_file(root_fd, "/etc/group", USER_FILE_MAX_BYTES, &group, &group_size, err) &&
           exec_user_resolve(text, (struct user_file){passwd, passwd_size},
                             (struct user_file){group, group_size}, ret, err);
}

/* --- The bundle ------------------------------------------------------------------------------- */

static bool write_keep_note(const struct preparation *job, struct error *err)
{
    const struct kept_note note = {
        .id = job->id,
        .image = &job->options->image,
        .diff_ids = job->diff_ids,
        .diff_id_count = job->lower_count,
        .created_unix = time(NULL),
    };

    return job->options->remove || kept_note_write(job->paths->data_dir, &note, err);
}

/* A mounted root in, config.json out. */
static bool write_bundle(struct preparation *job, const struct image_config *config, int root_fd,
                         struct error *err)
{
    const struct container_options *options = job->options;
    const char *user_text = str_empty(options->user) ? config->user : options->user;
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP(host_facts_done) struct host_facts host = {0};
    CLEANUP(etc_files_done) struct etc_files files = {0};
    CLEANUP(strv_cleanup) char **args = NULL;
    CLEANUP(strv_cleanup) char **env = NULL;
    CLEANUP_FREE char *cwd = NULL;
    CLEANUP_FREE char *hostname = NULL;
    CLEANUP_FREE char *path = xasprintf("%s/config.json", job->paths->bundle_dir);
    CLEANUP_FREE char *text = NULL;

    if (!(args = merge_command(config->entrypoint, config->cmd, options->entrypoint,
                               options->command, err)) ||
        !(cwd = merge_working_dir(config->working_dir, options->working_dir, err)) ||
        !(hostname = choose_hostname(job, err)) ||
        !resolve_user(root_fd, user_text ? user_text : "", &user, err) ||
        !(env = merge_environment(config->env, options->env, hostname, user.home, err)) ||
        !rootfs_make_dirs(root_fd, cwd, err) || !write_etc_files(job, hostname, &files, err))
        return false;
    host_facts_read(&host);
    const struct spec_input input = {
        .id = job->id,
        .rootfs = job->paths->rootfs,
        .args = args,
        .env = env,
        .cwd = cwd,
        .hostname = hostname,
        .user = &user,
        .host = &host,
        .host_network = options->network == CONTAINER_NETWORK_HOST,
        .hosts_path = files.hosts,
        .hostname_path = files.hostname,
        .resolv_conf_path = files.resolv_conf,
    };
    text = spec_build(&input, err);
    job->uid = user.uid;
    job->gid = user.gid;
    return text && write_file(path, text, 0600, err);
}

static bool prepare(struct preparation *job, struct error *err)
{
    CLEANUP(image_config_cleanup) struct image_config *config = NULL;
    CLEANUP_CLOSE int root_fd = -1;

    config = image_config_parse(job->config_data, job->config_size, err);
    if (!config || !container_paths_create(job->paths, err) || !write_keep_note(job, err) ||
        !rootfs_mount(job->paths, job->lower_dirs, job->lower_count, job->options->remove, err))
        return false;
    root_fd = open(job->paths->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_set_errno(err, errno, "cannot open %s", job->paths->rootfs);
    return write_bundle(job, config, root_fd, err);
}

void prepare_container(void *arg)
{
    struct preparation *job = arg;

    job->ok = prepare(job, &job->err);
}
