/* The confined process that reads one layer's archive for a storage driver (davit-untar or
 * davit-index), as the daemon sees it: it is fed through its standard input, writes a report to its
 * standard output, and ends. */
#pragma once

#include "daemon/store/archive/report.h"
#include "proto/async/stream.h"

struct archive_reader;

/* Starts the program with fds as its descriptors from 3 on; they stay the caller's. Free it with
 * archive_reader_end_await. NULL with err. */
struct archive_reader *await_archive_reader_start(const char *program, const int *fds,
                                                  size_t fd_count, struct error *err);

/* Writes to its input; waits while the pipe is full. If it has given up the archive, the error is
 * what it reports. */
bool await_archive_reader_write(struct archive_reader *reader, const void *data, size_t size,
                                struct error *err);

/* Ends its input, waits for its report and its end. DATA_LOSS (INVALID_LAYER) and NO_SPACE as it
 * reports them; UNPACKER_FAILED if it died. The result is the caller's. */
bool await_archive_reader_finish(struct archive_reader *reader, struct layer_report *ret,
                                 struct error *err);

/* For those that say more than a report: their standard input, NULL once it has ended, and standard
 * output, borrowed; the end of the input; the exit status, once they have said all. */
struct stream *archive_reader_input(struct archive_reader *reader);
struct stream *archive_reader_output(struct archive_reader *reader);
void archive_reader_end_input(struct archive_reader *reader);
int await_archive_reader_status(struct archive_reader *reader, int *ret_status);

/* Kills it if it still runs and frees. Suspends, also for a cancelled task. Takes NULL. */
void archive_reader_end_await(struct archive_reader *reader);
