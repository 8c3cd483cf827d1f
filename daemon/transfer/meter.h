/* How fast something comes: bytes of the last seconds, by the clock that the caller gives. No
 * I/O. */
#pragma once

#include "proto/base/util.h"

#define METER_SLOT_MS 125
#define METER_SLOTS 24 /* three seconds */
#define METER_WINDOW_MAX_MS ((METER_SLOTS - 1) * METER_SLOT_MS)

struct meter {
    uint64_t started_ms, slot; /* its number: time by METER_SLOT_MS */
    uint64_t bytes[METER_SLOTS];
};

/* Begins at zero. */
void meter_start(struct meter *meter, uint64_t now_ms);
void meter_add(struct meter *meter, uint64_t now_ms, uint64_t bytes);

/* Bytes per second over the last window_ms, or since the start if that is less ago. */
uint64_t meter_rate(struct meter *meter, uint64_t now_ms, uint64_t window_ms);
