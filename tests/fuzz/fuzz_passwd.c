/* USER resolution: whatever the image's passwd and group files hold, the result is an id in range
 * with a home that can stand in an environment, or an error. */
#include "daemon/container/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Input: the user's text up to the first NUL, /etc/passwd up to the second, then /etc/group. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_ERROR struct error err = {0};
    const char *text = (const char *)data;
    const char *passwd = size ? memchr(text, '\0', size) : NULL;
    const char *end = text + size;
    const char *group;

    if (!passwd)
        return 0;
    passwd++;
    group = memchr(passwd, '\0', (size_t)(end - passwd));
    struct user_file passwd_file = {passwd, (size_t)((group ? group : end) - passwd)};
    struct user_file group_file = {group ? group + 1 : NULL, group ? (size_t)(end - group - 1) : 0};
    if (!exec_user_resolve(text, passwd_file, group_file, &user, &err)) {
        CHECK(error_is_set(&err) && !user.home);
        return 0;
    }
    CHECK(user.uid <= USER_ID_MAX && user.gid <= USER_ID_MAX);
    CHECK(user.home && user.home[0] == '/');
    /* Digits are an id, whatever the files say. */
    if (text[0] && text[strspn(text, "0123456789")] == '\0')
        CHECK(user.uid == strtoull(text, NULL, 10));
    return 0;
}
