/* What the targets that read archives do to them first. */
#pragma once

#include <stdio.h>

#include "proto/base/util.h"

/* Without this, hardly a changed header would be read: its checksum is wrong. */
static inline void mend_checksums(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *block = data + at;
        unsigned int sum = 0;
        char text[8];
        if (memcmp(block + 257, "ustar", 5) != 0)
            continue;
        memset(block + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += block[i];
        snprintf(text, sizeof(text), "%06o", sum);
        memcpy(block + 148, text, 7);
    }
}
