/* What davit-archive says to the daemon on its standard output, without I/O: frames, each a header
 * of 8 bytes and so many bytes more, in the machine's byte order. Both ends are one build.
 *
 *   archive  = { MEMBER, { DATA } }, ( END | FAILED )     members
 *            = { DATA }, ( END | FAILED )                 inflate
 *   MEMBER   type (1 byte: 'f' file, 'l' link to another member), size (8 bytes, as the archive
 *            says it), path NUL, target NUL
 *   DATA     the next bytes of the last member (or of what is inflated), at least one, at most
 *            FRAME_DATA_MAX; of a member as many as its size, holes as zeros; of a link none
 *   END      nothing; the archive was read to its end, and what followed it, if that was little
 *   FAILED   as report_encode_error() writes it
 *
 * Paths are relative and clean, without "." and "..", as path_parse() makes them; that of a link's
 * target is already what the link means. Members that are no file and no link (directories,
 * devices) are left out. Standard input is a byte, enum archive_mode, and then the archive. */
#pragma once

#include "daemon/store/archive/limits.h"
#include "proto/base/error.h"

enum archive_mode {
    ARCHIVE_MEMBERS = 'm', /* a tar archive, plain or compressed by gzip, zstd, xz or bzip2 */
    ARCHIVE_INFLATE = 'i', /* any bytes, inflated if they are compressed by one of these */
};

enum frame_kind { FRAME_MEMBER = 1, FRAME_DATA, FRAME_END, FRAME_FAILED };

struct frame {
    enum frame_kind kind;
    uint32_t size; /* of what follows the header */
};

#define FRAME_HEADER_BYTES 8
#define FRAME_DATA_MAX (1 * MIB)
#define FRAME_MEMBER_MAX (9 + 2 * LAYER_PATH_MAX)
#define FRAME_FAILED_MAX (4 * KIB)
#define ARCHIVE_MEMBERS_MAX 1000000 /* of one archive: also those that are left out */

struct frame_member {
    bool is_link;
    uint64_t size_bytes;
    const char *path, *target; /* in the frame; target: "" unless it is a link */
};

void frame_encode_header(uint8_t out[FRAME_HEADER_BYTES], const struct frame *frame);

/* Into FRAME_MEMBER_MAX bytes; returns the size. Both paths are shorter than LAYER_PATH_MAX. */
size_t frame_encode_member(uint8_t *out, const struct frame_member *member);

/* What reads an archive from a stranger is not trusted with what it says either: anything that is
 * not as above is INTERNAL (UNPACKER_FAILED). */
bool frame_decode_header(const uint8_t data[FRAME_HEADER_BYTES], struct frame *ret,
                         struct error *err);
bool frame_decode_member(const void *data, size_t size, struct frame_member *ret,
                         struct error *err);

/* The error of a FAILED frame. Returns false. */
bool frame_decode_failure(const void *data, size_t size, struct error *err);
