#include "daemon/transfer/internal.h"
#include "proto/async/loop.h"

/* --- Whose they are --------------------------------------------------------------------------- */

void places_add(struct transfer *transfer, const struct transfer_share *share,
                const struct source_list *sources)
{
    for (size_t i = 0; i < sources->count; i++) {
        struct place *place = xcalloc(1, sizeof(*place));
        place->source = source_ref(sources->items[i]);
        place->share = share;
        list_append(&transfer->places, &place->node);
    }
}

static void place_free(struct transfer *transfer, struct place *place)
{
    if (transfer->place == place)
        transfer->place = NULL;
    list_remove(&place->node);
    source_unref(place->source);
    error_done(&place->error);
    free(place->validator);
    free(place);
}

struct place *place_ref(struct place *place)
{
    place->connections++;
    return place;
}

struct place *place_unref(struct transfer *transfer, struct place *place)
{
    if (place && --place->connections == 0 && !place->share)
        place_free(transfer, place);
    return NULL;
}

void places_leave(struct transfer *transfer, const struct transfer_share *share)
{
    LIST_FOR_EACH (node, &transfer->places) {
        struct place *place = LIST_ITEM(node, struct place, node);
        if (place->share != share)
            continue;
        place->share = NULL;
        if (!place->connections)
            place_free(transfer, place);
    }
}

void places_free(struct transfer *transfer)
{
    LIST_FOR_EACH (node, &transfer->places) {
        place_free(transfer, LIST_ITEM(node, struct place, node));
    }
}

/* --- Which of them ---------------------------------------------------------------------------- */

static bool is_left(const struct place *place)
{
    return place->share && !place->used_up;
}

static bool may_be_asked(const struct place *place)
{
    return is_left(place) && place->retry_at_ms <= loop_now_ms();
}

struct place *places_choose(struct transfer *transfer)
{
    struct place *best = transfer->place;

    if (best && may_be_asked(best) && !source_ignores_ranges(best->source))
        return best;
    best = NULL;
    LIST_FOR_EACH (node, &transfer->places) {
        struct place *place = LIST_ITEM(node, struct place, node);
        if (!may_be_asked(place))
            continue;
        /* All over again only where there is no other way. */
        if (!best || (source_ignores_ranges(best->source) && !source_ignores_ranges(place->source)))
            best = place;
    }
    if (best)
        transfer->place = best;
    return best;
}

const struct place *places_next(const struct transfer *transfer)
{
    const struct place *next = NULL;

    LIST_FOR_EACH (node, (struct list *)&transfer->places) {
        const struct place *place = LIST_ITEM(node, struct place, node);
        if (is_left(place) && (!next || place->retry_at_ms < next->retry_at_ms))
            next = place;
    }
    return next;
}

/* --- What they did ---------------------------------------------------------------------------- */

const struct error *places_error(const struct transfer *transfer,
                                 const struct transfer_share *share)
{
    const struct error *last = NULL;

    /* The last of a requester's is the registry itself, where its users know the words. */
    LIST_FOR_EACH (node, (struct list *)&transfer->places) {
        const struct place *place = LIST_ITEM(node, struct place, node);
        if (place->share == share && error_is_set(&place->error))
            last = &place->error;
    }
    return last;
}

/* The one that gave all bytes of a round; NULL: several did, or some were here before. */
static struct place *find_culprit(const struct transfer *transfer)
{
    struct place *culprit = NULL;

    LIST_FOR_EACH (node, (struct list *)&transfer->places) {
        struct place *place = LIST_ITEM(node, struct place, node);
        if (!place->bytes_served)
            continue;
        if (culprit)
            return NULL;
        culprit = place;
    }
    return transfer->bytes_resumed ? NULL : culprit;
}

bool places_begin_anew(struct transfer *transfer, const struct error *err)
{
    struct place *culprit = find_culprit(transfer), *chosen = NULL;

    if (culprit) {
        source_failed(culprit->source, err);
        culprit->used_up = true;
        error_copy(&culprit->error, err);
    }
    /* Where it is not clear whose fault it was, the registry itself is best. */
    LIST_FOR_EACH (node, &transfer->places) {
        struct place *place = LIST_ITEM(node, struct place, node);
        place->bytes_served = 0;
        if (is_left(place) && (!chosen || (!culprit && !source_is_mirror(place->source))))
            chosen = place;
    }
    if (!chosen && culprit && culprit->share) {
        chosen = culprit; /* it may have been chance */
        chosen->used_up = false;
    }
    transfer->place = chosen;
    return chosen != NULL;
}
