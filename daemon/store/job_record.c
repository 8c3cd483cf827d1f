#include "daemon/store/job_record.h"

#include "daemon/store/internal.h"

void job_record_done(struct job_record *record)
{
    free(record->id);
    free(record->kind);
    free(record->state);
    free(record->subject);
    free(record->details.data);
    free(record->request.data);
    error_done(&record->failure);
    *record = (struct job_record){0};
}

void job_records_done(struct job_records *records)
{
    for (size_t i = 0; i < records->count; i++)
        job_record_done(&records->items[i]);
    free(records->items);
    *records = (struct job_records){0};
}

/* --- Writing -----------------------------------------------------------------------------------
 */

static bool drop_old(struct db *db, struct error *err)
{
    const int64_t age_ms = JOB_RECORDS_MAX_AGE_DAYS * 24 * 3600 * INT64_C(1000);

    return db_run(db, "DELETE FROM jobs WHERE ended AND ended_unix_ms < ?", err,
                  db_integer(wall_clock_ns() / 1000000 - age_ms)) &&
           db_run(db,
                  "DELETE FROM jobs WHERE ended AND id NOT IN (SELECT id FROM jobs WHERE ended"
                  " ORDER BY ended_unix_ms DESC LIMIT ?)",
                  err, db_integer(JOB_RECORDS_MAX));
}

static bool write_record(struct db *db, void *arg, struct error *err)
{
    const struct job_record *record = arg;

    if (!db_run(db,
                "INSERT OR REPLACE INTO jobs (id, kind, state, subject, ended, started_unix_ms,"
                " ended_unix_ms, attempts, limit_bytes_per_second, sequence, percent,"
                " bytes_fetched, bytes_total, error_code, error_reason, error_message, error_hint,"
                " details, request)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                err, db_text(record->id), db_text(record->kind), db_text(record->state),
                db_text(record->subject), db_integer(record->ended),
                db_integer(record->started_unix_ms), db_integer(record->ended_unix_ms),
                db_integer(record->attempts), db_integer((int64_t)record->limit_bytes_per_second),
                db_integer((int64_t)record->sequence), db_integer(record->percent),
                db_integer((int64_t)record->bytes_fetched),
                db_integer((int64_t)record->bytes_total), db_integer(record->failure.code),
                db_text(record->failure.reason), db_text(record->failure.message),
                db_text(record->failure.hint), db_blob(record->details.data, record->details.size),
                record->request.data ? db_blob(record->request.data, record->request.size)
                                     : db_text(NULL)))
        return false;
    return !record->ended || drop_old(db, err);
}

bool await_job_record_write(struct store *store, const struct job_record *record, struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    /* Nobody who watches the end of a job outlives a power cut: it need not wait for the disk. */
    return (record->ended ? await_db_transaction_unsynced(locked, write_record, (void *)record, err)
                          : await_db_transaction(locked, write_record, (void *)record, err)) ||
           error_prefix(err, "cannot write down job %s", record->id);
}

/* --- Reading -----------------------------------------------------------------------------------
 */

struct read_work {
    const char *prefix;
    bool ended;
    struct job_records *ret;
};

static struct record_bytes column_bytes(sqlite3_stmt *row, int column)
{
    const void *data = sqlite3_column_blob(row, column);
    struct record_bytes bytes = {.size = (size_t)sqlite3_column_bytes(row, column)};

    if (sqlite3_column_type(row, column) != SQLITE_NULL)
        bytes.data = bytes.size ? xmemdup(data, bytes.size) : xstrdup("");
    return bytes;
}

static void take_row(sqlite3_stmt *row, struct job_record *ret)
{
    const char *reason = (const char *)sqlite3_column_text(row, 13);
    const char *message = (const char *)sqlite3_column_text(row, 14);
    const char *hint = (const char *)sqlite3_column_text(row, 15);
    int code = sqlite3_column_int(row, 12);

    *ret = (struct job_record){
        .id = db_column_text(row, 0),
        .kind = db_column_text(row, 1),
        .state = db_column_text(row, 2),
        .subject = db_column_text(row, 3),
        .started_unix_ms = sqlite3_column_int64(row, 4),
        .ended_unix_ms = sqlite3_column_int64(row, 5),
        .attempts = (unsigned int)sqlite3_column_int(row, 6),
        .limit_bytes_per_second = (uint64_t)sqlite3_column_int64(row, 7),
        .sequence = (uint64_t)sqlite3_column_int64(row, 8),
        .percent = (unsigned int)sqlite3_column_int(row, 9),
        .bytes_fetched = (uint64_t)sqlite3_column_int64(row, 10),
        .bytes_total = (uint64_t)sqlite3_column_int64(row, 11),
        .details = column_bytes(row, 16),
        .request = column_bytes(row, 17),
    };
    if (code == ERROR_NONE)
        return;
    error_set(&ret->failure, (enum error_code)code, reason, "%s", message ? message : "");
    if (hint)
        error_hint(&ret->failure, "%s", hint);
}

static bool read_records(struct db *db, void *arg, struct error *err)
{
    struct read_work *work = arg;
    const struct db_value values[] = {db_text(work->prefix), db_text(work->prefix),
                                      db_integer(work->ended)};
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(
        db,
        "SELECT id, kind, state, subject, started_unix_ms, ended_unix_ms, attempts,"
        " limit_bytes_per_second, sequence, percent, bytes_fetched, bytes_total, error_code,"
        " error_reason, error_message, error_hint, details, request FROM jobs"
        " WHERE substr(id, 1, length(?)) = ? AND ended = ? ORDER BY started_unix_ms DESC, id",
        values, ARRAY_SIZE(values), err);
    struct job_records *ret = work->ret;
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        ret->items = xrealloc(ret->items, (ret->count + 1) * sizeof(*ret->items));
        take_row(row, &ret->items[ret->count]);
        ret->items[ret->count++].ended = work->ended;
    }
    return r == 0;
}

bool await_job_records_read(struct store *store, const char *id_prefix, bool ended,
                            struct job_records *ret, struct error *err)
{
    struct read_work work = {.prefix = id_prefix, .ended = ended, .ret = ret};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    *ret = (struct job_records){0};
    if (!locked)
        return false;
    if (await_db_transaction(locked, read_records, &work, err))
        return true;
    job_records_done(ret);
    return error_prefix(err, "cannot read what is remembered of jobs");
}
