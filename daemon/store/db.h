/* The database: one SQLite connection, used by one task at a time on the thread pool. For the files
 * of this folder.
 *
 * A change: await_db_lock(), look at the state in memory, await_db_transaction(), change the state
 * in memory, db_unlock(). So changes do not interleave, and memory never runs ahead of the disk. */
#pragma once

#include <sqlite3.h>

#include "proto/async/task.h"

struct db;

/* Opens or makes the database and brings its schema up to date. Blocks. FAILED_PRECONDITION
 * (SCHEMA_TOO_NEW) for one that a newer davit wrote; DATA_LOSS (DATABASE_DAMAGED). */
struct db *db_open(const char *path, struct error *err);
struct db *db_close(struct db *db); /* blocks; NULL */

/* The newest schema this program knows, and for tests: stops migrating at that version. */
int db_schema_version(void);
struct db *db_open_version(const char *path, int version, struct error *err);

/* Returns db, or NULL with err if the task was cancelled. */
struct db *await_db_lock(struct db *db, struct error *err);
void db_unlock(struct db **locked); /* for CLEANUP; takes NULL */

/* Runs fn on the thread pool, in a transaction that is committed if fn returns true. fn owns arg
 * alone meanwhile. False with err: nothing was changed. The lock must be held. */
typedef bool (*db_fn)(struct db *db, void *arg, struct error *err);
bool await_db_transaction(struct db *db, db_fn fn, void *arg, struct error *err);

/* The same for what may be lost by a power cut, though not by a kill, and is not to wait for the
 * disk. It becomes durable with the next other transaction. */
bool await_db_transaction_unsynced(struct db *db, db_fn fn, void *arg, struct error *err);

/* The same for what frees space: it is done on a full disk, too, with space that is kept for that.
 * fn may run twice. */
bool await_db_removal(struct db *db, db_fn fn, void *arg, struct error *err);

/* A transaction, blocking: only while nobody else knows the database. */
bool db_transaction(struct db *db, db_fn fn, void *arg, struct error *err);

/* --- Statements, inside fn ---------------------------------------------------------------------
 */

struct db_value {
    enum { DB_VALUE_TEXT, DB_VALUE_INTEGER, DB_VALUE_BLOB } type;
    const void *data; /* text and blob: borrowed for the statement; NULL text is NULL */
    int64_t number;   /* integer, or the size of a blob */
};

static inline struct db_value db_text(const char *text)
{
    return (struct db_value){.type = DB_VALUE_TEXT, .data = text};
}

static inline struct db_value db_integer(int64_t number)
{
    return (struct db_value){.type = DB_VALUE_INTEGER, .number = number};
}

static inline struct db_value db_blob(const void *data, size_t size)
{
    return (struct db_value){.type = DB_VALUE_BLOB, .data = data, .number = (int64_t)size};
}

/* Runs a statement with its parameters: db_run(db, "DELETE FROM t WHERE a = ?", err, db_text(a)) */
#define db_run(db, sql, err, ...)                                  \
    db_run_values(db, sql, (const struct db_value[]){__VA_ARGS__}, \
                  ARRAY_SIZE(((const struct db_value[]){__VA_ARGS__})), err)
bool db_run_values(struct db *db, const char *sql, const struct db_value *values, size_t count,
                   struct error *err);

/* Statements without parameters, several with semicolons. */
bool db_run_script(struct db *db, const char *sql, struct error *err);

int64_t db_last_id(const struct db *db); /* of the row that was inserted last */

/* Rows: begin, db_step until it is 0 or -1, read columns with sqlite3_column_*, db_query_done. */
sqlite3_stmt *db_query(struct db *db, const char *sql, const struct db_value *values, size_t count,
                       struct error *err);
int db_step(struct db *db, sqlite3_stmt *statement, struct error *err); /* 1: a row; 0; -1 */
void db_query_done(sqlite3_stmt **statement);
char *db_column_text(sqlite3_stmt *statement, int column); /* the caller's; NULL for NULL */
