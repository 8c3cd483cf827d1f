/* A blob on its way in, for tests: what is in it is known for every byte. */
#pragma once

#include "daemon/store/partial.h"

/* Byte at an offset of every blob. */
uint8_t blob_byte(uint64_t offset);

/* The digest of a blob by this name; that of the tests' own. */
struct digest blob_named(int name);
struct digest blob_digest(void);

/* The tests' own blob; a failure ends the test. */
struct partial *await_open_blob(struct store *store, uint64_t size, struct error *err);

/* Writes what belongs at offset..end. */
bool await_write_blob(struct partial *partial, uint64_t offset, uint64_t end, struct error *err);

/* Checks that it holds exactly offset..end, and that this is what was written. */
void await_check_holds(struct partial *partial, uint64_t offset, uint64_t end);
