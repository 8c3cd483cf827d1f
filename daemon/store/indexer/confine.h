/* What davit-index gives up before it reads the first byte of the archive. */
#pragma once

#include "proto/base/error.h"

/* Closes every descriptor from first_free on, bounds memory, drops all capabilities, and allows
 * from then on only system calls that read and write open files and get memory; any other one
 * fails. It has opened all it needs. */
bool confine(unsigned int first_free, struct error *err);
