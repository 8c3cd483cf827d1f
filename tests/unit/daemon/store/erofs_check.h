/* Reads an EROFS image as the kernel does, but trusts nothing: what must hold of every image that
 * we write is checked, and ends the program if it does not. */
#pragma once

#include "proto/base/strbuf.h"

/* Checks all of an image of size bytes: checksum, every inode, directory, xattr and chunk; that
 * nothing overlaps, names are sorted, links are counted, content lies within the devices. Adds a
 * line per name to *listing (may be NULL): form, layout, mode, owner, links, size, time, path, what
 * is special, xattrs. */
void erofs_check(const uint8_t *data, size_t size, uint64_t archive_bytes, uint64_t sparse_bytes,
                 struct strbuf *listing);
