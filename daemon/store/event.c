#include "daemon/store/event.h"

#include "daemon/store/internal.h"
#include "proto/base/json.h"

/* Labels of strangers become attributes: so many bytes of them at most, whole ones. */
#define LABELS_MAX_BYTES (32 * KIB)

/* Time is looked at every so many events. */
#define AGE_CHECK_INTERVAL 1024

struct event_record *event_record_unref(struct event_record *event)
{
    if (event && --event->refs == 0)
        free(event);
    return NULL;
}

void events_done(struct events *events)
{
    for (size_t i = 0; i < events->count; i++)
        event_record_unref(events->items[i]);
    free(events->items);
    *events = (struct events){0};
}

static const char *place_text(char **place, const char *text)
{
    size_t size = strlen(text) + 1;
    char *start = *place;

    memcpy(start, text, size);
    *place += size;
    return start;
}

static struct event_record *record_new(int64_t id, int64_t time_unix_ns, const char *const texts[4])
{
    size_t size = 0;
    struct event_record *event;
    char *place;

    for (size_t i = 0; i < 4; i++)
        size += strlen(texts[i]) + 1;
    event = xmalloc(sizeof(*event) + size);
    *event = (struct event_record){.refs = 1, .id = id, .time_unix_ns = time_unix_ns};
    place = event->text;
    event->type = place_text(&place, texts[0]);
    event->action = place_text(&place, texts[1]);
    event->actor = place_text(&place, texts[2]);
    event->attributes = place_text(&place, texts[3]);
    return event;
}

/* --- Writing -----------------------------------------------------------------------------------
 */

static void add_labels(json_t *attributes, const void *config_data, size_t config_size)
{
    CLEANUP_JSON json_t *config = json_parse(config_data, config_size, 4 * MIB, "config", NULL);
    json_t *labels = json_object_get(json_object_get(config, "config"), "Labels"), *value;
    size_t bytes = 0;
    const char *key;

    json_object_foreach (labels, key, value) {
        if (!json_is_string(value))
            continue;
        bytes += strlen(key) + json_string_length(value);
        if (bytes > LABELS_MAX_BYTES)
            return;
        json_object_set(attributes, key, value);
    }
}

static bool add_labels_of(json_t *attributes, struct db *db, const struct digest *image,
                          struct error *err)
{
    const struct db_value id = db_text(image->text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db, "SELECT config FROM images WHERE id = ?", &id, 1, err);
    int r = row ? db_step(db, row, err) : -1;

    if (r == 1)
        add_labels(attributes, sqlite3_column_blob(row, 0), (size_t)sqlite3_column_bytes(row, 0));
    return r >= 0;
}

static bool drop_old(struct db *db, int64_t id, int64_t max, struct error *err)
{
    const int64_t age_ns = EVENTS_MAX_AGE_DAYS * 24 * 3600 * INT64_C(1000000000);

    return db_run(db, "DELETE FROM events WHERE id <= ?", err, db_integer(id - max)) &&
           (id % AGE_CHECK_INTERVAL || db_run(db, "DELETE FROM events WHERE time_unix_ns < ?", err,
                                              db_integer(wall_clock_ns() - age_ns)));
}

bool event_write(struct db *db, const struct store *store, const struct event_note *note,
                 struct event_record **ret, struct error *err)
{
    CLEANUP_JSON json_t *attributes = json_object();
    CLEANUP_FREE char *text = NULL;
    int64_t now = wall_clock_ns(), id;

    *ret = event_record_unref(*ret);
    if (!note || !note->action)
        return true;
    if (note->image && !add_labels_of(attributes, db, note->image, err))
        return false;
    if (note->name)
        json_object_set_new(attributes, "name", json_string(note->name));
    if (note->reclaimed)
        json_object_set_new(attributes, "reclaimed", json_string(note->reclaimed));
    text = json_dumps(attributes, JSON_COMPACT | JSON_SORT_KEYS);
    if (!db_run(db,
                "INSERT INTO events (time_unix_ns, type, action, actor, attributes)"
                " VALUES (?, 'image', ?, ?, ?)",
                err, db_integer(now), db_text(note->action), db_text(note->actor), db_text(text)))
        return false;
    id = db_last_id(db);
    if (!drop_old(db, id, store->events.max, err))
        return false;
    *ret = record_new(id, now, (const char *const[4]){"image", note->action, note->actor, text});
    return true;
}

void event_publish(struct store *store, struct event_record *event)
{
    struct event_log *log = &store->events;
    struct event_record **place;

    if (!event)
        return;
    place = &log->recent[event->id % EVENTS_RECENT];
    event_record_unref(*place);
    *place = event;
    log->last_id = event->id;
    wake_all(&log->changed);
}

struct add_work {
    const struct store *store;
    const struct event_note *note;
    struct event_record *event;
};

static bool add_event(struct db *db, void *arg, struct error *err)
{
    struct add_work *work = arg;

    return event_write(db, work->store, work->note, &work->event, err);
}

bool await_event_add(struct store *store, const struct event_note *note, struct error *err)
{
    struct add_work work = {.store = store, .note = note};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!await_db_transaction(locked, add_event, &work, err)) {
        event_record_unref(work.event);
        return error_prefix(err, "cannot write an event");
    }
    event_publish(store, work.event);
    return true;
}

/* --- Opening -----------------------------------------------------------------------------------
 */

void event_log_init(struct event_log *log, int64_t max)
{
    log->max = max > 0 ? max : EVENTS_MAX_DEFAULT;
    wait_queue_init(&log->changed);
}

void event_log_done(struct event_log *log)
{
    for (size_t i = 0; i < EVENTS_RECENT; i++)
        event_record_unref(log->recent[i]);
}

bool event_log_load(struct db *db, struct event_log *log, struct error *err)
{
    /* Also right if all have been dropped. */
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT seq FROM sqlite_sequence WHERE name = 'events'", NULL, 0, err);
    int r = row ? db_step(db, row, err) : -1;

    if (r == 1)
        log->last_id = sqlite3_column_int64(row, 0);
    return r >= 0;
}

/* --- Reading -----------------------------------------------------------------------------------
 */

int64_t event_last_id(const struct store *store)
{
    return store->events.last_id;
}

/* From memory, if all that come after are there. */
static bool read_recent(const struct event_log *log, int64_t after_id, struct events *ret)
{
    int64_t count = MIN(log->last_id - after_id, EVENTS_PER_READ);

    if (log->last_id - after_id > EVENTS_RECENT)
        return false;
    ret->items = xcalloc((size_t)MAX(count, 1), sizeof(struct event_record *));
    for (int64_t i = 0; i < count; i++) {
        struct event_record *event = log->recent[(after_id + 1 + i) % EVENTS_RECENT];
        if (!event || event->id != after_id + 1 + i) {
            events_done(ret);
            return false;
        }
        event->refs++;
        ret->items[ret->count++] = event;
    }
    ret->first_id = after_id + 1;
    return true;
}

struct read_work {
    int64_t after_id, last_id;
    struct events *ret;
};

static bool read_first_id(struct db *db, int64_t fallback, int64_t *ret, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db, "SELECT min(id) FROM events", NULL, 0, err);

    if (!row || db_step(db, row, err) != 1)
        return false;
    *ret = sqlite3_column_type(row, 0) == SQLITE_NULL ? fallback : sqlite3_column_int64(row, 0);
    return true;
}

static bool read_events(struct db *db, void *arg, struct error *err)
{
    struct read_work *work = arg;
    const struct db_value values[] = {db_integer(work->after_id), db_integer(EVENTS_PER_READ)};
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db,
                                 "SELECT id, time_unix_ns, type, action, actor, attributes"
                                 " FROM events WHERE id > ? ORDER BY id LIMIT ?",
                                 values, ARRAY_SIZE(values), err);
    int r = row ? 1 : -1;

    events_done(work->ret);
    work->ret->items = xcalloc(EVENTS_PER_READ, sizeof(struct event_record *));
    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        const char *texts[4];
        for (int i = 0; i < 4; i++)
            texts[i] = (const char *)sqlite3_column_text(row, 2 + i);
        work->ret->items[work->ret->count++] =
            record_new(sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), texts);
    }
    return r == 0 && read_first_id(db, work->last_id + 1, &work->ret->first_id, err);
}

bool await_events_read(struct store *store, int64_t after_id, struct events *ret, struct error *err)
{
    struct read_work work = {.after_id = after_id, .ret = ret};
    CLEANUP(db_unlock) struct db *locked = NULL;

    *ret = (struct events){0};
    if (after_id >= store->events.last_id || read_recent(&store->events, after_id, ret))
        return true;
    locked = await_db_lock(store->db, err);
    if (!locked)
        return false;
    work.last_id = store->events.last_id;
    if (await_db_transaction(locked, read_events, &work, err))
        return true;
    events_done(ret);
    return error_prefix(err, "cannot read events");
}

struct find_work {
    int64_t time_unix_ns, id;
};

static bool find_id(struct db *db, void *arg, struct error *err)
{
    struct find_work *work = arg;
    const struct db_value time = db_integer(work->time_unix_ns);
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT max(id) FROM events WHERE time_unix_ns < ?", &time, 1, err);

    if (!row || db_step(db, row, err) != 1)
        return false;
    work->id = sqlite3_column_int64(row, 0); /* NULL gives 0 */
    return true;
}

bool await_event_id_before(struct store *store, int64_t time_unix_ns, int64_t *ret,
                           struct error *err)
{
    struct find_work work = {.time_unix_ns = time_unix_ns};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!await_db_transaction(locked, find_id, &work, err))
        return error_prefix(err, "cannot read events");
    *ret = work.id;
    return true;
}

int await_event_newer(struct store *store, int64_t after_id)
{
    int r = task_check();

    while (r == 0 && store->events.last_id <= after_id)
        r = await_wake(&store->events.changed, "waiting for an event");
    return r;
}
