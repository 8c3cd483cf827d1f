/* Reads an EROFS image as the kernel does, but trusts nothing: what must hold of every image that
 * we write is checked, and ends the program if it does not. */
#pragma once

#include "proto/base/strbuf.h"

/* Checks all of an image of size bytes: checksum, every inode, directory, xattr and chunk; that
 * nothing overlaps, names are sorted, links are counted. Adds a line per name to *listing (may be
 * NULL): form, layout, mode, owner, links, size, time, path, what is special, xattrs. */
void erofs_check(const uint8_t *image, size_t size, struct strbuf *listing);
