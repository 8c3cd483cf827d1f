#include "daemon/image/tar_header.h"

#include <stdio.h>

/* Eleven octal digits. */
#define USTAR_SIZE_MAX 077777777777ULL

struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
_Static_assert(sizeof(struct ustar) == TAR_BLOCK_BYTES, "as POSIX has it");

static void octal(char *field, size_t size, uint64_t value)
{
    field[--size] = '\0';
    for (; size > 0; value >>= 3)
        field[--size] = (char)('0' + (value & 7));
}

static void write_block(uint8_t *ret, const char *name, char type, unsigned int mode, uint64_t size)
{
    struct ustar header = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    unsigned int sum = 0;

    CHECK(strlen(name) <= sizeof(header.name));
    memcpy(header.name, name, strlen(name));
    octal(header.mode, sizeof(header.mode), mode);
    octal(header.uid, sizeof(header.uid), 0);
    octal(header.gid, sizeof(header.gid), 0);
    octal(header.size, sizeof(header.size), size);
    octal(header.mtime, sizeof(header.mtime), 0);
    octal(header.major, sizeof(header.major), 0);
    octal(header.minor, sizeof(header.minor), 0);
    memset(header.checksum, ' ', sizeof(header.checksum));
    for (size_t i = 0; i < sizeof(header); i++)
        sum += ((const uint8_t *)&header)[i];
    octal(header.checksum, sizeof(header.checksum) - 1, sum); /* the blank behind it stays */
    memcpy(ret, &header, sizeof(header));
}

/* The record begins with its own length: two digits, since the size has ten to twenty. */
static size_t write_size_record(char *ret, uint64_t size)
{
    int length = snprintf(NULL, 0, "12 size=%llu\n", (unsigned long long)size);

    return (size_t)snprintf(ret, TAR_BLOCK_BYTES, "%d size=%llu\n", length,
                            (unsigned long long)size);
}

size_t tar_header_size(const struct tar_entry *entry)
{
    return entry->size_bytes > USTAR_SIZE_MAX ? TAR_HEADER_MAX : TAR_BLOCK_BYTES;
}

void tar_header_write(const struct tar_entry *entry, uint8_t *ret)
{
    bool directory = str_ends(entry->name, "/");

    if (entry->size_bytes > USTAR_SIZE_MAX) {
        char *record = (char *)ret + TAR_BLOCK_BYTES;
        memset(record, 0, TAR_BLOCK_BYTES);
        write_block(ret, "PaxHeaders/size", 'x', 0644,
                    write_size_record(record, entry->size_bytes));
        ret += (size_t)2 * TAR_BLOCK_BYTES;
    }
    write_block(ret, entry->name, directory ? '5' : '0', directory ? 0755 : 0644,
                entry->size_bytes > USTAR_SIZE_MAX ? 0 : entry->size_bytes);
}
