#include "proto/base/digest.h"

#include <openssl/evp.h>
#include <stdio.h>

bool digest_parse(const char *text, struct digest *ret, struct error *err)
{
    static const char prefix[] = "sha256:";

    if (!str_starts(text, prefix) || strlen(text) != strlen(prefix) + 64 ||
        strspn(text + strlen(prefix), "0123456789abcdef") != 64) {
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_DIGEST",
                         "invalid digest \"%.100s\": expected sha256: and 64 lower-case hex digits",
                         text);
    }
    memcpy(ret->text, text, sizeof(ret->text));
    return true;
}

struct hasher {
    EVP_MD_CTX *context;
};

struct hasher *hasher_new(void)
{
    struct hasher *hasher = xcalloc(1, sizeof(*hasher));

    hasher->context = EVP_MD_CTX_new();
    if (!hasher->context || EVP_DigestInit_ex(hasher->context, EVP_sha256(), NULL) != 1)
        die("OpenSSL offers no SHA-256");
    return hasher;
}

struct hasher *hasher_free(struct hasher *hasher)
{
    if (hasher)
        EVP_MD_CTX_free(hasher->context);
    free(hasher);
    return NULL;
}

void hasher_update(struct hasher *hasher, const void *data, size_t size)
{
    if (EVP_DigestUpdate(hasher->context, data, size) != 1)
        die("SHA-256 update failed");
}

struct digest hasher_finish(struct hasher *hasher)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    struct digest digest = {.text = "sha256:"};

    if (EVP_DigestFinal_ex(hasher->context, raw, &size) != 1 || size != 32)
        die("SHA-256 final failed");
    for (unsigned int i = 0; i < size; i++)
        snprintf(digest.text + 7 + 2 * i, 3, "%02x", raw[i]);
    return digest;
}

struct digest digest_of(const void *data, size_t size)
{
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();

    hasher_update(hasher, data, size);
    return hasher_finish(hasher);
}
