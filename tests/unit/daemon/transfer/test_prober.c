/* How many connections are tried, and kept, on lines of every kind: the prober against a model. */
#include "tests/unit/test.h"

#include "daemon/transfer/meter.h"
#include "daemon/transfer/prober.h"

#define TICK_MS 125

/* A line, and a server at its end. */
struct line {
    uint64_t line_rate, connection_rate; /* bytes per second */
    unsigned int layers, connections_max, opening_ms;
};

struct model {
    struct prober prober;
    const struct line *line;
    uint64_t now_ms, bytes, young_since_ms;
    unsigned int connections, delivering;
};

static void model_start(struct model *model, const struct line *line)
{
    *model = (struct model){.line = line, .now_ms = 1000000};
    prober_init(&model->prober, 10);
}

/* Those that are allowed open, those that are too many end when their work does: a second later. */
static void tick(struct model *model)
{
    const struct line *line = model->line;
    unsigned int allowed = prober_allowed(&model->prober, line->layers);
    uint64_t rate = MIN(line->line_rate, line->connection_rate * model->delivering);

    if (allowed > model->connections) {
        if (line->connections_max && allowed > line->connections_max) {
            prober_failed(&model->prober, model->connections, model->now_ms);
            allowed = prober_allowed(&model->prober, line->layers);
        }
        model->connections = MAX(model->connections, allowed);
        model->young_since_ms = model->now_ms;
    }
    if (model->now_ms - model->young_since_ms >= line->opening_ms)
        model->delivering = model->connections;
    if (allowed < model->connections && model->now_ms % 1000 == 0)
        model->connections = model->delivering = allowed;
    model->now_ms += TICK_MS;
    model->bytes += rate * TICK_MS / 1000;
    prober_look(&model->prober, &(struct prober_sample){
                                    .now_ms = model->now_ms,
                                    .total_bytes = model->bytes,
                                    .layers = line->layers,
                                    .connections = model->connections,
                                    .delivering = model->delivering,
                                    .fastest = rate / MAX(model->delivering, 1U),
                                    .useful = true,
                                });
}

static void run(struct model *model, uint64_t ms)
{
    for (uint64_t end = model->now_ms + ms; model->now_ms < end;)
        tick(model);
}

static void test_grows_where_each_gets_only_so_much(void **state)
{
    const struct line line = {.line_rate = 6250000,
                              .connection_rate = 625000,
                              .layers = 3,
                              .opening_ms = 100};
    struct model model;

    (void)state;
    model_start(&model, &line);
    run(&model, 2500);
    assert_int_equal(model.connections, 10);
    run(&model, 60000);
    assert_int_equal(model.connections, 10); /* and stays there */
}

static void test_stays_where_the_line_is_full(void **state)
{
    const struct line line = {.line_rate = 1250000,
                              .connection_rate = 10000000,
                              .layers = 3,
                              .opening_ms = 100};
    struct model model;
    uint64_t with_more_ms = 0;

    (void)state;
    model_start(&model, &line);
    for (unsigned int i = 0; i < 480; i++) { /* a minute */
        tick(&model);
        if (model.connections > 3)
            with_more_ms += TICK_MS;
    }
    assert_int_equal(model.connections, 3);
    assert_in_range(with_more_ms, 1, 8000);
}

static void test_takes_what_the_server_gives(void **state)
{
    const struct line line = {.line_rate = 6250000,
                              .connection_rate = 625000,
                              .layers = 1,
                              .connections_max = 4,
                              .opening_ms = 100};
    struct model model;

    (void)state;
    model_start(&model, &line);
    run(&model, 2500);
    assert_in_range(model.connections, 2, 4);
    run(&model, 60000);
    assert_in_range(model.connections, 2, 4);
}

static void test_fewer_on_a_line_that_gives_next_to_nothing(void **state)
{
    const struct line line = {.line_rate = 6000,
                              .connection_rate = 6000,
                              .layers = 3,
                              .opening_ms = 500};
    struct model model;

    (void)state;
    model_start(&model, &line);
    run(&model, 30000);
    assert_int_equal(model.connections, 1);
    run(&model, 120000);
    assert_in_range(model.connections, 1, 2); /* one more is tried now and then */
}

static void test_one_each_even_after_failures(void **state)
{
    struct prober prober;

    (void)state;
    prober_init(&prober, 10);
    assert_int_equal(prober_allowed(&prober, 3), 3);
    assert_int_equal(prober_allowed(&prober, 20), 10);
    prober_failed(&prober, 0, 1000);
    assert_int_equal(prober_allowed(&prober, 3), 1); /* the server has trouble */
    for (uint64_t ms = 1000; ms < 16500; ms += TICK_MS)
        prober_look(&prober, &(struct prober_sample){.now_ms = ms, .layers = 3});
    assert_int_equal(prober_allowed(&prober, 3), 3);
}

static void test_begins_anew_with_the_next_pull(void **state)
{
    const struct line line = {.line_rate = 6250000,
                              .connection_rate = 625000,
                              .layers = 1,
                              .opening_ms = 100};
    struct model model;

    (void)state;
    model_start(&model, &line);
    run(&model, 5000);
    assert_int_equal(model.connections, 10);
    prober_look(&model.prober, &(struct prober_sample){.now_ms = model.now_ms});
    assert_int_equal(prober_allowed(&model.prober, 1), 1);
}

static void test_meter(void **state)
{
    struct meter meter;

    (void)state;
    meter_start(&meter, 10000);
    assert_int_equal(meter_rate(&meter, 10000, 2000), 0);
    for (uint64_t ms = 10000; ms < 20000; ms += 10)
        meter_add(&meter, ms, 10);
    assert_in_range(meter_rate(&meter, 20000, 2000), 950, 1000);
    assert_in_range(meter_rate(&meter, 20000, 1000000), 950, 1000);
    meter_add(&meter, 20000, 100000);
    assert_in_range(meter_rate(&meter, 20000, 2000), 45000, 55000);
    assert_int_equal(meter_rate(&meter, 30000, 2000), 0); /* long ago */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_where_each_gets_only_so_much),
        cmocka_unit_test(test_stays_where_the_line_is_full),
        cmocka_unit_test(test_takes_what_the_server_gives),
        cmocka_unit_test(test_fewer_on_a_line_that_gives_next_to_nothing),
        cmocka_unit_test(test_one_each_even_after_failures),
        cmocka_unit_test(test_begins_anew_with_the_next_pull),
        cmocka_unit_test(test_meter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
