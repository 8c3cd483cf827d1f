/* The engine with a real store and registries from a script: which bytes are asked of whom,
 * whatever goes wrong. */
#include "tests/unit/test.h"

#include <stdio.h>

#include "daemon/store/partial_file.h"
#include "daemon/transfer/transfer.h"
#include "tests/unit/daemon/store/fixture.h"
#include "tests/unit/daemon/transfer/scripted.h"

#define LAYER_BYTES (6 * MIB)
#define PARTIAL_BLOCK PARTIAL_BLOCK_BYTES

/* A store of its own, a table, and a layer that nobody has yet. */
struct bench {
    struct store *store;
    struct transfer_table *table;
    struct strbuf tar;
    struct digest digest;
    struct descriptor blob;
};

static struct bench *await_bench(struct transfer_options options, size_t layer_bytes,
                                 struct error *err)
{
    static unsigned int number;
    struct bench *bench = xcalloc(1, sizeof(*bench));
    CLEANUP_FREE char *name = xasprintf("engine%u", number++);
    CLEANUP_FREE char *content = xmalloc(layer_bytes);

    for (size_t i = 0; i < layer_bytes; i++)
        content[i] = (char)random();
    tar_add(&bench->tar, "file", '0', content, layer_bytes);
    tar_end(&bench->tar);
    bench->digest = digest_of(bench->tar.data, bench->tar.length);
    bench->blob = (struct descriptor){(char *)"application/vnd.oci.image.layer.v1.tar",
                                      bench->digest, bench->tar.length};
    blob_data = bench->tar.data;
    blob_size = bench->tar.length;
    scripted_reset();
    bench->store = await_open_scratch(name, err);
    assert_ok(bench->store, err);
    options.store = bench->store;
    options.max_concurrent = options.max_concurrent ? options.max_concurrent : 3;
    options.backoff_ms = options.backoff_ms ? options.backoff_ms : 4;
    bench->table = transfer_table_new(&options);
    return bench;
}

static void bench_done_await(struct bench **bench)
{
    transfer_table_free_await((*bench)->table);
    store_close_await((*bench)->store);
    strbuf_done(&(*bench)->tar);
    free(*bench);
}

#define BENCH(...)            \
    CLEANUP(bench_done_await) \
    struct bench *bench = await_bench(__VA_ARGS__)

/* One who wants the layer of the bench, from these sources. */
static struct transfer_share *join(struct bench *bench, struct requester *requester,
                                   struct source **sources, size_t count, struct error *err)
{
    const struct source_list list = {sources, count};
    const struct transfer_request request = {.requester = requester,
                                             .sources = &list,
                                             .blob = &bench->blob,
                                             .diff_id = &bench->digest};
    struct transfer_share *share = transfer_join(bench->table, &request, err);

    assert_ok(share, err);
    return share;
}

/* Wants it, and waits for it. */
static bool await_fetch(struct bench *bench, struct source **sources, size_t count,
                        struct error *err)
{
    struct requester *requester = requester_new(0);
    struct transfer_share *share = join(bench, requester, sources, count, err);
    bool ok = await_transfer(share, err);

    transfer_leave(share);
    requester_free(requester);
    return ok && layer_find(bench->store, &bench->digest, NULL);
}

static bool await_fetch_from(struct bench *bench, struct source *source, struct error *err)
{
    return await_fetch(bench, &source, 1, err);
}

static struct answer refusal(const char *reason, enum error_code code)
{
    return (struct answer){.error = reason, .error_code = code};
}

#define ENGINE_TEST(name)                                  \
    static bool name##_task(void *arg, struct error *err); \
    static void name(void **state)                         \
    {                                                      \
        (void)state;                                       \
        run_task(name##_task, NULL);                       \
    }                                                      \
    static bool name##_task(void *arg UNUSED, struct error *err)

/* --- Resume and failover ---------------------------------------------------------------------- */

ENGINE_TEST(test_all_at_once)
{
    BENCH((struct transfer_options){0}, 100000, err);
    struct source source = {.name = "a"};

    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_int_equal(asked_count, 1);
    assert_int_equal(asked[0].offset, 0);
    assert_int_equal(asked[0].end, blob_size);
    assert_int_equal(source.bytes, blob_size);
    assert_int_equal(source.served, blob_size);
    assert_int_equal(source.references, 0);
    return true;
}

ENGINE_TEST(test_goes_on_at_the_byte)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {
        .name = "a", .script = {{.drop_after = 300001}, {.drop_after = 1}, {.drop_after = 7}}};

    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_int_equal(asked[1].offset, 300001);
    assert_int_equal(asked[2].offset, 300002);
    assert_int_equal(asked[3].offset, 300009);
    assert_int_equal(source.bytes, blob_size); /* nothing twice */
    return true;
}

ENGINE_TEST(test_fails_over_at_the_byte)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source mirror = {.name = "mirror", .mirror = true};
    struct source itself = {.name = "itself"};
    struct source *both[] = {&mirror, &itself};

    mirror.script[0].drop_after = 1000000;
    mirror.script[1] = refusal("CONNECTION_FAILED", ERROR_UNAVAILABLE);
    assert_ok(await_fetch(bench, both, 2, err), err);
    assert_int_equal(mirror.bytes, 1000000);
    assert_int_equal(mirror.failures, 2);
    assert_ptr_equal(asked[2].source, &itself);
    assert_int_equal(asked[2].offset, 1000000);
    assert_int_equal(itself.bytes, blob_size - 1000000);
    return true;
}

/* A retry that is given up keeps what came, and the next one asks for the rest. */
ENGINE_TEST(test_keeps_what_came)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {.name = "a", .script = {{.drop_after = 3 * MIB}}};

    for (unsigned int i = 1; i < ANSWERS_MAX; i++)
        source.script[i] =
            (struct answer){.error = "CONNECTION_FAILED", .error_code = ERROR_UNAVAILABLE};
    source.script[0].drop_after = 1 * MIB;
    assert_false(await_fetch_from(bench, &source, err));
    assert_error(err, ERROR_UNAVAILABLE, "CONNECTION_FAILED");
    assert_int_equal(source.requests, 7); /* six in vain */

    memset(source.script, 0, sizeof(source.script));
    source.bytes = 0;
    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_int_equal(asked[7].offset, 1 * MIB);
    assert_int_equal(source.bytes, blob_size - 1 * MIB);
    return true;
}

ENGINE_TEST(test_resumes_after_a_cancel)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {.name = "a", .script = {{.stall_after = 1234567}}};
    struct source *sources[] = {&source};
    struct requester *requester = requester_new(0);
    struct transfer_share *share = join(bench, requester, sources, 1, err);

    while (source.bytes < 1234567)
        await_yield();
    transfer_leave(share);
    assert_true(transfer_table_unwinds(bench->table));
    share = join(bench, requester, sources, 1, err);
    assert_ok(await_transfer(share, err), err);
    assert_int_equal(transfer_progress(share).bytes_resumed / PARTIAL_BLOCK,
                     1234567 / PARTIAL_BLOCK);
    transfer_leave(share);
    requester_free(requester);
    assert_in_range(source.bytes, blob_size, blob_size + PARTIAL_BLOCK);
    return true;
}

/* --- Several who want it ---------------------------------------------------------------------- */

ENGINE_TEST(test_one_transfer_for_all)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {.name = "a"}, *sources[] = {&source};
    struct requester *requesters[5];
    struct transfer_share *shares[5];

    for (size_t i = 0; i < 5; i++) {
        requesters[i] = requester_new(0);
        shares[i] = join(bench, requesters[i], sources, 1, err);
        assert_int_equal(transfer_is_shared(shares[i]), i > 0);
    }
    for (size_t i = 0; i < 5; i++) {
        assert_ok(await_transfer(shares[i], err), err);
        transfer_leave(shares[i]);
        requester_free(requesters[i]);
    }
    assert_int_equal(source.bytes, blob_size);
    return true;
}

ENGINE_TEST(test_failure_of_the_first_is_its_own)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source missing = {.name = "missing"}, good = {.name = "good"};
    struct source *first_sources[] = {&missing}, *second_sources[] = {&good};
    struct requester *first = requester_new(0), *second = requester_new(0);
    struct transfer_share *a = join(bench, first, first_sources, 1, err);
    struct transfer_share *b = join(bench, second, second_sources, 1, err);

    missing.script[0] = refusal("BLOB_UNKNOWN", ERROR_NOT_FOUND);
    assert_ok(await_transfer(b, err), err);
    assert_ok(await_transfer(a, err), err);
    assert_int_equal(missing.requests, 1);
    assert_int_equal(good.bytes, blob_size);
    transfer_leave(a);
    transfer_leave(b);
    requester_free(first);
    requester_free(second);
    return true;
}

ENGINE_TEST(test_each_gets_the_error_of_its_own_sources)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source a = {.name = "a"}, b = {.name = "b"};
    struct source *a_sources[] = {&a}, *b_sources[] = {&b};
    struct requester *first = requester_new(0), *second = requester_new(0);
    struct transfer_share *shares[] = {join(bench, first, a_sources, 1, err),
                                       join(bench, second, b_sources, 1, err)};

    a.script[0] = refusal("BLOB_UNKNOWN", ERROR_NOT_FOUND);
    b.script[0] = refusal("UNAUTHORIZED", ERROR_UNAUTHENTICATED);
    assert_false(await_transfer(shares[0], err));
    assert_error(err, ERROR_NOT_FOUND, "BLOB_UNKNOWN");
    assert_false(await_transfer(shares[1], err));
    assert_error(err, ERROR_UNAUTHENTICATED, "UNAUTHORIZED");
    transfer_leave(shares[0]);
    transfer_leave(shares[1]);
    requester_free(first);
    requester_free(second);
    return true;
}

/* Who leaves takes its sources along: what goes on is with those of the others. */
ENGINE_TEST(test_who_leaves_hurts_nobody)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source theirs = {.name = "theirs", .script = {{.stall_after = 500000}}};
    struct source ours = {.name = "ours"};
    struct source *first_sources[] = {&theirs}, *second_sources[] = {&ours};
    struct requester *first = requester_new(0), *second = requester_new(0);
    struct transfer_share *a = join(bench, first, first_sources, 1, err);
    struct transfer_share *b = join(bench, second, second_sources, 1, err);

    while (theirs.bytes < 500000)
        await_yield();
    transfer_leave(a);
    requester_free(first);
    assert_ok(await_transfer(b, err), err);
    assert_int_equal(theirs.bytes, 500000);
    assert_int_equal(ours.bytes, blob_size - 500000);
    assert_int_equal(theirs.references, 0);
    transfer_leave(b);
    requester_free(second);
    return true;
}

/* A manifest that lies about a layer harms only itself. */
ENGINE_TEST(test_another_diff_id_waits_and_fails_alone)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {.name = "a"}, *sources[] = {&source};
    const struct source_list list = {sources, 1};
    struct requester *requester = requester_new(0);
    struct digest lie = digest_of("lie", 3);
    struct transfer_share *good = join(bench, requester, sources, 1, err);
    struct transfer_share *bad = transfer_join(bench->table,
                                               &(struct transfer_request){.requester = requester,
                                                                          .sources = &list,
                                                                          .blob = &bench->blob,
                                                                          .diff_id = &lie},
                                               err);

    assert_false(await_transfer(bad, err));
    assert_error(err, ERROR_DATA_LOSS, "");
    assert_ok(await_transfer(good, err), err);
    transfer_leave(good);
    transfer_leave(bad);
    requester_free(requester);
    return true;
}

/* --- Lies ------------------------------------------------------------------------------------- */

ENGINE_TEST(test_ranges_ignored)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source source = {.name = "a", .script = {{.drop_after = MIB}, {.whole = true}}};

    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_int_equal(source.requests, 2);
    assert_int_equal(source.bytes, blob_size + MIB);
    return true;
}

ENGINE_TEST(test_wrong_bytes_come_from_elsewhere_the_second_time)
{
    BENCH((struct transfer_options){0}, LAYER_BYTES, err);
    struct source liar = {.name = "liar", .mirror = true}, itself = {.name = "itself"};
    struct source *both[] = {&liar, &itself};

    for (size_t i = 0; i < ANSWERS_MAX; i++)
        liar.script[i].wrong_at = 100; /* what the archive's reader stumbles over, too */
    assert_ok(await_fetch(bench, both, 2, err), err);
    assert_int_equal(liar.bytes, blob_size);
    assert_int_equal(itself.bytes, blob_size);
    assert_int_equal(liar.failures, 1);
    assert_int_equal(itself.failures, 0);
    return true;
}

ENGINE_TEST(test_wrong_bytes_twice)
{
    BENCH((struct transfer_options){0}, 1 * MIB, err);
    struct source liar = {.name = "liar"};

    for (size_t i = 0; i < ANSWERS_MAX; i++)
        liar.script[i].wrong_at = 600;
    assert_false(await_fetch_from(bench, &liar, err));
    assert_string_equal(err->reason, "DIGEST_MISMATCH");
    error_done(err);
    assert_int_equal(liar.requests, 2);
    memset(liar.script, 0, sizeof(liar.script));
    liar.bytes = 0;
    assert_ok(await_fetch_from(bench, &liar, err), err);
    assert_int_equal(liar.bytes, blob_size); /* nothing wrong was kept */
    return true;
}

/* What the publisher did wrong is not fetched again. */
ENGINE_TEST(test_right_bytes_of_a_broken_layer)
{
    BENCH((struct transfer_options){0}, 1 * MIB, err);
    struct source source = {.name = "a"};

    bench->tar.data[100] ^= 1; /* the header's checksum */
    bench->digest = digest_of(bench->tar.data, bench->tar.length);
    bench->blob.digest = bench->digest;
    assert_false(await_fetch_from(bench, &source, err));
    assert_string_equal(err->reason, "INVALID_LAYER");
    error_done(err);
    assert_int_equal(source.bytes, blob_size);
    return true;
}

ENGINE_TEST(test_more_than_announced)
{
    BENCH((struct transfer_options){0}, 1 * MIB, err);
    struct source source = {.name = "a"};

    for (size_t i = 0; i < ANSWERS_MAX; i++)
        source.script[i].too_long = true;
    assert_false(await_fetch_from(bench, &source, err));
    assert_string_equal(err->reason, "REGISTRY_PROTOCOL");
    error_done(err);
    return true;
}

/* --- Waiting ---------------------------------------------------------------------------------- */

ENGINE_TEST(test_obeys_retry_after)
{
    BENCH((struct transfer_options){0}, 1 * MIB, err);
    struct source source = {.name = "a",
                            .script = {{.error = "REGISTRY_BUSY",
                                        .error_code = ERROR_UNAVAILABLE,
                                        .retry_after_ms = 400}}};
    struct source *sources[] = {&source};
    struct requester *requester = requester_new(0);
    struct transfer_share *share = join(bench, requester, sources, 1, err);
    struct transfer_progress progress;

    while ((progress = transfer_progress(share)).state != TRANSFER_RATE_LIMITED)
        await_yield();
    assert_string_equal(progress.error, "scripted: REGISTRY_BUSY");
    assert_in_range(progress.until_unix_ms, wall_clock_ns() / 1000000,
                    wall_clock_ns() / 1000000 + 400);
    assert_ok(await_transfer(share, err), err);
    assert_int_equal(source.requests, 2);
    assert_true(asked[1].ms - asked[0].ms >= 399);
    transfer_leave(share);
    requester_free(requester);
    return true;
}

ENGINE_TEST(test_shows_that_it_will_retry)
{
    BENCH((struct transfer_options){.backoff_ms = 300}, 1 * MIB, err);
    struct source source = {.name = "a",
                            .script = {
                                {.error = "CONNECTION_FAILED", .error_code = ERROR_UNAVAILABLE}}};
    struct source *sources[] = {&source};
    struct requester *requester = requester_new(0);
    struct transfer_share *share = join(bench, requester, sources, 1, err);

    while (transfer_progress(share).state != TRANSFER_RETRYING)
        await_yield();
    assert_ok(await_transfer(share, err), err);
    assert_int_equal(transfer_progress(share).state, TRANSFER_DONE);
    assert_int_equal(transfer_progress(share).bytes_fetched, blob_size);
    transfer_leave(share);
    requester_free(requester);
    return true;
}

/* --- Several connections ---------------------------------------------------------------------- */

/* A server that gives each connection only so much: more of them are used, and every byte is still
 * asked for once, but for what was on its way when one took over from another. */
ENGINE_TEST(test_more_connections_where_they_help)
{
    BENCH((struct transfer_options){0}, 24 * MIB, err);
    struct source source = {.name = "a", .chunk_ms = 32}; /* 2 MB/s each */

    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_in_range(source.open_max, 2, 10); /* 10, unless this machine is busy */
    assert_in_range(source.bytes, blob_size, blob_size + 10 * 64 * KIB);
    return true;
}

/* One more than the server takes costs nothing but the attempt. */
ENGINE_TEST(test_one_connection_too_many)
{
    BENCH((struct transfer_options){0}, 12 * MIB, err);
    struct source source = {.name = "a", .chunk_ms = 32, .connections_max = 2};

    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_int_equal(source.open_max, 2);
    assert_int_equal(source.failures, 0);
    return true;
}

/* The other connections finish what a stalled one holds. */
ENGINE_TEST(test_straggler_is_overtaken)
{
    BENCH((struct transfer_options){0}, 24 * MIB, err);
    struct source source = {.name = "a", .chunk_ms = 32};

    source.script[2].stall_after = 70000;
    assert_ok(await_fetch_from(bench, &source, err), err);
    assert_in_range(source.bytes, blob_size, blob_size + 10 * 64 * KIB);
    return true;
}

/* --- Fairness --------------------------------------------------------------------------------- */

/* One who has nothing running does not wait for another's large layers; that one's own do. */
ENGINE_TEST(test_slots_are_fair)
{
    BENCH((struct transfer_options){.max_concurrent = 2}, 1 * MIB, err);
    struct source large = {.name = "large"}, small = {.name = "small"};
    struct source *large_sources[] = {&large}, *small_sources[] = {&small};
    struct requester *greedy = requester_new(0), *modest = requester_new(0);
    struct transfer_share *shares[5];

    for (size_t i = 0; i < ANSWERS_MAX; i++)
        large.script[i].stall_after = small.script[i].stall_after = 1000;
    for (size_t i = 0; i < 5; i++) {
        bench->blob.digest = digest_of(&i, sizeof(i));
        bench->digest = bench->blob.digest;
        shares[i] = i < 4 ? join(bench, greedy, large_sources, 1, err)
                          : join(bench, modest, small_sources, 1, err);
    }
    while (large.bytes < 2000 || small.bytes < 1000)
        await_yield();
    assert_int_equal(large.open, 2);
    assert_int_equal(transfer_progress(shares[2]).state, TRANSFER_WAITING);
    transfer_leave(shares[0]); /* the next one's turn */
    while (large.bytes < 3000)
        await_yield();
    for (size_t i = 1; i < 5; i++)
        transfer_leave(shares[i]);
    requester_free(greedy);
    requester_free(modest);
    return true;
}

/* --- Caps --------------------------------------------------------------------------- */

ENGINE_TEST(test_cap_of_a_requester)
{
    BENCH((struct transfer_options){0}, 1 * MIB, err);
    struct source source = {.name = "a"}, *sources[] = {&source};
    struct requester *requester = requester_new(2 * MIB);
    uint64_t started = now_ms(), took;
    struct transfer_share *share = join(bench, requester, sources, 1, err);

    assert_ok(await_transfer(share, err), err);
    took = now_ms() - started;
    assert_in_range(took, 490, 3000);
    assert_int_equal(source.open_max, 1);
    transfer_leave(share);
    requester_free(requester);
    return true;
}

ENGINE_TEST(test_cap_of_all_changes)
{
    BENCH((struct transfer_options){.bytes_per_second = 1000}, 4 * MIB, err);
    struct source source = {.name = "a"}, *sources[] = {&source};
    struct requester *requester = requester_new(0);
    struct transfer_share *share = join(bench, requester, sources, 1, err);

    while (source.bytes == 0)
        await_yield();
    assert_true(source.bytes < 100000);
    transfer_table_set_limits(bench->table, 3, 0);
    assert_ok(await_transfer(share, err), err);
    transfer_leave(share);
    requester_free(requester);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_goes_on_at_the_byte),
        cmocka_unit_test(test_fails_over_at_the_byte),
        cmocka_unit_test(test_keeps_what_came),
        cmocka_unit_test(test_resumes_after_a_cancel),
        cmocka_unit_test(test_one_transfer_for_all),
        cmocka_unit_test(test_failure_of_the_first_is_its_own),
        cmocka_unit_test(test_each_gets_the_error_of_its_own_sources),
        cmocka_unit_test(test_who_leaves_hurts_nobody),
        cmocka_unit_test(test_another_diff_id_waits_and_fails_alone),
        cmocka_unit_test(test_ranges_ignored),
        cmocka_unit_test(test_wrong_bytes_come_from_elsewhere_the_second_time),
        cmocka_unit_test(test_wrong_bytes_twice),
        cmocka_unit_test(test_right_bytes_of_a_broken_layer),
        cmocka_unit_test(test_more_than_announced),
        cmocka_unit_test(test_obeys_retry_after),
        cmocka_unit_test(test_shows_that_it_will_retry),
        cmocka_unit_test(test_more_connections_where_they_help),
        cmocka_unit_test(test_one_connection_too_many),
        cmocka_unit_test(test_straggler_is_overtaken),
        cmocka_unit_test(test_slots_are_fair),
        cmocka_unit_test(test_cap_of_a_requester),
        cmocka_unit_test(test_cap_of_all_changes),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
