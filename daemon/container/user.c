#include "daemon/container/user.h"

/* Groups of one process (limits.h, NGROUPS_MAX). */
#define MAX_GROUPS 65536

#define USER_TEXT_MAX 256

/* A run of bytes inside a file: no copy, no terminator. */
struct span {
    const char *start;
    size_t length;
};

static bool span_eq(struct span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.start, text, span.length) == 0;
}

/* Takes what stands before the separator off the front of the rest; the whole rest if there is
 * none. False at the end. A rest with start NULL is at its end. */
static bool span_cut(struct span *rest, char separator, struct span *ret)
{
    const char *end;

    if (!rest->start)
        return false;
    end = memchr(rest->start, separator, rest->length);
    if (!end) {
        *ret = *rest;
        *rest = (struct span){0};
        return true;
    }
    *ret = (struct span){rest->start, (size_t)(end - rest->start)};
    *rest = (struct span){end + 1, rest->length - ret->length - 1};
    return true;
}

/* Only digits, in range. */
static bool parse_id(struct span span, uint32_t *ret)
{
    uint64_t value = 0;

    if (span.length == 0)
        return false;
    for (size_t i = 0; i < span.length; i++) {
        if (span.start[i] < '0' || span.start[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(span.start[i] - '0');
        if (value > USER_ID_MAX)
            return false;
    }
    *ret = (uint32_t)value;
    return true;
}

/* True for what is meant as a number, in range or not: "12", "-1", "99999999999". */
static bool looks_like_id(const char *text)
{
    if (*text == '-' || *text == '+')
        text++;
    return *text && text[strspn(text, "0123456789")] == '\0';
}

/* --- The two files ---------------------------------------------------------------------------- */

struct passwd_entry {
    struct span name, home;
    uint32_t uid, gid;
};

/* The next usable line of "name:password:uid:gid:gecos:home:shell". */
static bool next_passwd(struct span *file, struct passwd_entry *ret)
{
    struct span line, unused, uid, gid;

    while (span_cut(file, '\n', &line)) {
        *ret = (struct passwd_entry){0};
        if (span_cut(&line, ':', &ret->name) && ret->name.length > 0 &&
            span_cut(&line, ':', &unused) && span_cut(&line, ':', &uid) &&
            span_cut(&line, ':', &gid) && parse_id(uid, &ret->uid) && parse_id(gid, &ret->gid)) {
            if (span_cut(&line, ':', &unused))
                span_cut(&line, ':', &ret->home);
            return true;
        }
    }
    return false;
}

struct group_entry {
    struct span name, members;
    uint32_t gid;
};

/* The next usable line of "name:password:gid:member,member". */
static bool next_group(struct span *file, struct group_entry *ret)
{
    struct span line, unused, gid;

    while (span_cut(file, '\n', &line)) {
        *ret = (struct group_entry){0};
        if (span_cut(&line, ':', &ret->name) && ret->name.length > 0 &&
            span_cut(&line, ':', &unused) && span_cut(&line, ':', &gid) &&
            parse_id(gid, &ret->gid)) {
            span_cut(&line, ':', &ret->members);
            return true;
        }
    }
    return false;
}

static bool has_member(const struct group_entry *group, struct span user)
{
    struct span members = group->members, member;

    while (span_cut(&members, ',', &member)) {
        if (member.length == user.length && memcmp(member.start, user.start, user.length) == 0)
            return true;
    }
    return false;
}

/* --- Resolving -------------------------------------------------------------------------------- */

/* An absolute path as it may stand in an environment; NULL otherwise. */
static char *copy_home(struct span home)
{
    if (home.length == 0 || home.start[0] != '/' || memchr(home.start, '\0', home.length))
        return NULL;
    return xstrndup(home.start, home.length);
}

static bool out_of_range(const char *text, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_USER",
                     "user or group %s: uids and gids must be in range 0-%u", text, USER_ID_MAX);
}

/* Finds the user; ret_name is empty if there is no entry. */
static bool resolve_user(const char *wanted, struct span passwd, struct exec_user *ret,
                         struct span *ret_name, struct error *err)
{
    bool is_id = looks_like_id(wanted) || !*wanted;
    struct passwd_entry entry;

    if (*wanted && is_id && !parse_id((struct span){wanted, strlen(wanted)}, &ret->uid))
        return out_of_range(wanted, err);
    while (next_passwd(&passwd, &entry)) {
        if (is_id ? entry.uid == ret->uid : span_eq(entry.name, wanted)) {
            ret->uid = entry.uid;
            ret->gid = entry.gid;
            ret->home = copy_home(entry.home);
            *ret_name = entry.name;
            return true;
        }
    }
    if (is_id)
        return true;
    error_set(err, ERROR_NOT_FOUND, "USER_NOT_FOUND",
              "unable to find user %s: no matching entries in passwd file", wanted);
    return error_hint(err, "use a user of the image's /etc/passwd, or a number");
}

static bool resolve_group(const char *wanted, struct span group, struct exec_user *ret,
                          struct error *err)
{
    struct group_entry entry;

    if (looks_like_id(wanted)) {
        if (!parse_id((struct span){wanted, strlen(wanted)}, &ret->gid))
            return out_of_range(wanted, err);
        return true;
    }
    while (next_group(&group, &entry)) {
        if (span_eq(entry.name, wanted)) {
            ret->gid = entry.gid;
            return true;
        }
    }
    error_set(err, ERROR_NOT_FOUND, "USER_NOT_FOUND",
              "unable to find group %s: no matching entries in group file", wanted);
    return error_hint(err, "use a group of the image's /etc/group, or a number");
}

static bool add_groups(struct span name, struct span group, struct exec_user *ret,
                       struct error *err)
{
    struct group_entry entry;

    while (next_group(&group, &entry)) {
        if (!has_member(&entry, name))
            continue;
        if (ret->group_count == MAX_GROUPS)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_USER",
                             "the image's /etc/group puts one user in more than %d groups",
                             MAX_GROUPS);
        /* Capacity doubles: at 0 and at every power of two. */
        if ((ret->group_count & (ret->group_count - 1)) == 0)
            ret->groups =
                xrealloc(ret->groups, sizeof(uint32_t) * MAX(ret->group_count * 2, (size_t)1));
        ret->groups[ret->group_count++] = entry.gid;
    }
    return true;
}

bool exec_user_resolve(const char *text, struct user_file passwd, struct user_file group,
                       struct exec_user *ret, struct error *err)
{
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_FREE char *user_text = xstrdup(text);
    struct span groups = {group.data, group.size}, name = {0};
    char *colon = strchr(user_text, ':');
    const char *group_text = colon ? colon + 1 : "";

    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f || c - text == USER_TEXT_MAX)
            return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_USER",
                             "invalid user: too long or not printable");
    }
    if (colon)
        *colon = '\0';
    if (strchr(group_text, ':'))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_USER",
                         "invalid user %s: expected user[:group]", text);
    if (!resolve_user(user_text, (struct span){passwd.data, passwd.size}, &user, &name, err))
        return false;
    if (*group_text) {
        if (!resolve_group(group_text, groups, &user, err))
            return false;
    } else if (name.length > 0 && !add_groups(name, groups, &user, err)) {
        return false;
    }
    if (!user.home)
        user.home = xstrdup("/");
    *ret = user;
    user = (struct exec_user){0};
    return true;
}

void exec_user_done(struct exec_user *user)
{
    free(user->groups);
    free(user->home);
    *user = (struct exec_user){0};
}
