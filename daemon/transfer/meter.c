#include "daemon/transfer/meter.h"

void meter_start(struct meter *meter, uint64_t now_ms)
{
    *meter = (struct meter){.started_ms = now_ms, .slot = now_ms / METER_SLOT_MS};
}

/* Slots that have passed hold nothing from now on. */
static void advance(struct meter *meter, uint64_t now_ms)
{
    uint64_t slot = now_ms / METER_SLOT_MS;

    for (unsigned int i = 0; meter->slot < slot && i < METER_SLOTS; i++)
        meter->bytes[++meter->slot % METER_SLOTS] = 0;
    meter->slot = slot;
}

void meter_add(struct meter *meter, uint64_t now_ms, uint64_t bytes)
{
    advance(meter, now_ms);
    meter->bytes[meter->slot % METER_SLOTS] += bytes;
}

uint64_t meter_rate(struct meter *meter, uint64_t now_ms, uint64_t window_ms)
{
    uint64_t bytes = 0, first, begin_ms;

    advance(meter, now_ms);
    window_ms = MIN(window_ms, METER_WINDOW_MAX_MS);
    first = meter->slot - MIN(meter->slot, window_ms / METER_SLOT_MS);
    for (uint64_t slot = first; slot <= meter->slot; slot++)
        bytes += meter->bytes[slot % METER_SLOTS];
    begin_ms = MAX(meter->started_ms, first * METER_SLOT_MS);
    return bytes * 1000 / MAX(now_ms - begin_ms, 1U);
}
