/* What instructions make of a configuration: what dockerd 28.5 makes of them, given to `docker
 * import --change`, in its words where it refuses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/resource.h>

#include "daemon/build/change.h"
#include "daemon/build/expand.h"
#include "daemon/build/instruction.h"

/* Changes are set apart by '@', and '~' is a newline; what is refused begins with '!'. */
static const struct {
    const char *changes, *expected;
} cases[] = {
    {"CMD", "{\"Cmd\":[\"/bin/sh\",\"-c\"]}"},
    {"CMD []", "{\"Cmd\":[]}"},
    {"CMD ['a']", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"['a']\"]}"},
    {"CMD [\"a\", \"b\\u00e9\\n\"] ", "{\"Cmd\":[\"a\",\"bé\\n\"]}"},
    {"CMD [\"a\"] x", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"[\\\"a\\\"] x\"]}"},
    {"CMD [\"a\",1]", "!when using JSON array syntax, arrays must be comprised of strings only"},
    {"CMD  a   b  ", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a   b\"]}"},
    {"cmd a", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a\"]}"},
    {"ENTRYPOINT", "{}"},
    {"ENTRYPOINT []", "{}"},
    {"ENTRYPOINT [\"a\"]@CMD x@ENTRYPOINT [\"b\"]",
     "{\"Cmd\":[\"/bin/sh\",\"-c\",\"x\"],\"Entrypoint\":[\"b\"]}"},
    {"CMD a@ENTRYPOINT b",
     "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a\"],\"Entrypoint\":[\"/bin/sh\",\"-c\",\"b\"]}"},
    {"ENTRYPOINT b@CMD a",
     "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a\"],\"Entrypoint\":[\"/bin/sh\",\"-c\",\"b\"]}"},
    {"USER a b", "{\"User\":\"a b\"}"},
    {"USER \"a b\"", "{\"User\":\"a b\"}"},
    {"USER $X", "{}"},
    {"USER", "!USER requires exactly one argument"},
    {"WORKDIR a@WORKDIR b", "{\"WorkingDir\":\"/a/b\"}"},
    {"WORKDIR \"a b\" c", "{\"WorkingDir\":\"/a b c\"}"},
    {"WORKDIR /w/../x/", "{\"WorkingDir\":\"/x\"}"},
    {"WORKDIR /../..", "{\"WorkingDir\":\"/\"}"},
    {"WORKDIR $A", "!cannot normalize nothing"},
    {"WORKDIR", "!WORKDIR requires exactly one argument"},
    {"ENV A=1@ENV B=$A C=${A:-x} D=${Z:-y} E=${A:+q} F=\\$A G='$A' H=\"$A b\\\"c\" I=a\\ b",
     "{\"Env\":[\"A=1\",\"B=1\",\"C=1\",\"D=y\",\"E=q\",\"F=$A\",\"G=$A\",\"H=1 b\\\"c\",\"I=a "
     "b\"]}"},
    {"ENV A=1 A=2@ENV A=3", "{\"Env\":[\"A=3\"]}"},
    {"ENV A=1@ENV A=2 B=$A", "{\"Env\":[\"A=2\",\"B=1\"]}"},
    {"ENV A b  c   d", "{\"Env\":[\"A=b  c   d\"]}"},
    {"ENV \"a\"=b", "{\"Env\":[\"a=b\"]}"},
    {"ENV a= b=", "{\"Env\":[\"a=\",\"b=\"]}"},
    {"ENV a=b\"c d\"e", "{\"Env\":[\"a=bc de\"]}"},
    {"ENV a=$$ b=${A}x c=$1 d=$* e=$", "{\"Env\":[\"a=\",\"b=x\",\"c=\",\"d=\",\"e=$\"]}"},
    {"ENV a=b\\", "{\"Env\":[\"a=b\"]}"},
    {"ENV", "!ENV requires at least one argument"},
    {"ENV a", "!ENV must have two arguments"},
    {"ENV =b", "!ENV names can not be blank"},
    {"ENV a=\"b", "!failed to process \"\\\"b\": unexpected end of statement while looking for "
                  "matching double-quote"},
    {"ENV A='b", "!failed to process \"'b\": unexpected end of statement while looking for "
                 "matching single-quote"},
    {"ENV A=${X", "!failed to process \"${X\": syntax error: missing '}'"}, /* our own */
    {"ENV A=${X:z}", "!failed to process \"${X:z}\": unsupported modifier (:z) in substitution"},
    {"ENV A=${", "!failed to process \"${\": syntax error: missing '}'"},
    {"ENV A=${}", "!failed to process \"${}\": syntax error: bad substitution"},
    {"ENV A=${X:-", "!failed to process \"${X:-\": syntax error: missing '}'"},
    {"ENV A=${B:?nope}", "!failed to process \"${B:?nope}\": B: nope"},
    {"ENV A=${B?nope}", "!failed to process \"${B?nope}\": B: nope"},
    {"ENV A=${B:?}", "!failed to process \"${B:?}\": B: is not allowed to be unset"},
    {"ENV A=${B-x} C=${B+y}", "{\"Env\":[\"A=x\",\"C=\"]}"},
    {"ENV B=@ENV A=${B-x} C=${B:-y} D=${B+z} E=${B:+w}",
     "{\"Env\":[\"B=\",\"A=\",\"C=y\",\"D=z\",\"E=\"]}"},
    {"ENV A=${B:-${C:-\"x y\"}}", "{\"Env\":[\"A=x y\"]}"},
    {"ENV A=${B:-a\\}b}", "{\"Env\":[\"A=a}b\"]}"},
    {"ENV A=\"a\\b\\\\c\\\"d\" B=a\\\\b", "{\"Env\":[\"A=a\\\\b\\\\c\\\"d\",\"B=a\\\\b\"]}"},
    {"ENV A='a\\b'", "{\"Env\":[\"A=a\\\\b\"]}"},
    {"ENV A=b\\ c d", "!Syntax error - can't find = in \"d\". Must be of the form: name=value"},
    {"ENV $X=y", "{\"Env\":[\"=y\"]}"},
    {"ENV A=1 B", "!Syntax error - can't find = in \"B\". Must be of the form: name=value"},
    {"  env   a=b  ", "{\"Env\":[\"a=b\"]}"},
    {"LABEL", "!LABEL requires at least one argument"},
    {"LABEL a", "!LABEL must have two arguments"},
    {"LABEL a b", "{\"Labels\":{\"a\":\"b\"}}"},
    {"LABEL =x", "!LABEL names can not be blank"},
    {"LABEL a=b c", "!Syntax error - can't find = in \"c\". Must be of the form: name=value"},
    {"LABEL \"a b\"=\"c d\"@LABEL e='f g'@LABEL h=$X",
     "{\"Labels\":{\"a b\":\"c d\",\"e\":\"f g\",\"h\":\"\"}}"},
    {"LABEL a=1@LABEL a=2", "{\"Labels\":{\"a\":\"2\"}}"},
    {"VOLUME", "!VOLUME requires at least one argument"},
    {"VOLUME [\"\"]", "!VOLUME specified can not be an empty string"},
    {"VOLUME []", "!VOLUME requires at least one argument"},
    {"VOLUME a b@VOLUME [\"c d\",\"e\"]", "{\"Volumes\":{\"a\":{},\"b\":{},\"c d\":{},\"e\":{}}}"},
    {"VOLUME $X/y", "{\"Volumes\":{\"/y\":{}}}"},
    {"VOLUME [\"$X\", \"b\"]", "!VOLUME specified can not be an empty string"},
    {"EXPOSE", "!EXPOSE requires at least one argument"},
    {"EXPOSE x", "!Invalid containerPort: x"},
    {"EXPOSE 99999", "!Invalid containerPort: 99999"},
    {"EXPOSE 80/foo", "!Invalid proto: foo"},
    {"EXPOSE 5-3", "!Invalid containerPort: 5-3"},
    {"EXPOSE 80 443/TCP 1000-1002/udp 127.0.0.1:8080:90 8080:91",
     "{\"ExposedPorts\":{\"1000/udp\":{},\"1001/udp\":{},\"1002/udp\":{},\"443/tcp\":{},\"80/"
     "tcp\":{},\"90/tcp\":{},\"91/tcp\":{}}}"},
    {"EXPOSE 80/tcp/x", "{\"ExposedPorts\":{\"80/tcp\":{}}}"},
    {"EXPOSE [80]", "!Invalid containerPort: [80]"},
    {"EXPOSE 80 $X", "{\"ExposedPorts\":{\"80/tcp\":{}}}"},
    {"EXPOSE $X", "{}"},
    {"ENV P=81@EXPOSE 80 $P/udp",
     "{\"ExposedPorts\":{\"80/tcp\":{},\"81/udp\":{}},\"Env\":[\"P=81\"]}"},
    {"HEALTHCHECK", "!HEALTHCHECK requires at least one argument"},
    {"HEALTHCHECK NONE", "{\"Healthcheck\":{\"Test\":[\"NONE\"]}}"},
    {"HEALTHCHECK none", "{\"Healthcheck\":{\"Test\":[\"NONE\"]}}"},
    {"HEALTHCHECK NONE x", "!HEALTHCHECK NONE takes no arguments"},
    {"HEALTHCHECK foo", "!Unknown type \"FOO\" in HEALTHCHECK (try CMD)"},
    {"HEALTHCHECK CMD", "!Missing command after HEALTHCHECK CMD"},
    {"HEALTHCHECK CMD [\"a\",\"b\"]", "{\"Healthcheck\":{\"Test\":[\"CMD\",\"a\",\"b\"]}}"},
    {"HEALTHCHECK cmd x", "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"x\"]}}"},
    {"HEALTHCHECK --interval=1m30s --timeout=1h --start-period=5ms --start-interval=2s --retries=2 "
     "CMD a  b",
     "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"a  "
     "b\"],\"Interval\":90000000000,\"Timeout\":3600000000000,\"StartPeriod\":5000000,"
     "\"StartInterval\":2000000000,\"Retries\":2}}"},
    {"HEALTHCHECK --interval=0s CMD x", "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"x\"]}}"},
    {"HEALTHCHECK --interval=1us CMD x", "!Interval \"interval\" cannot be less than 1ms"},
    {"HEALTHCHECK --interval=-1s CMD x", "!Interval \"interval\" cannot be less than 1ms"},
    {"HEALTHCHECK --interval=x CMD x", "!time: invalid duration \"x\""},
    {"HEALTHCHECK --interval=1.5s CMD x",
     "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"x\"],\"Interval\":1500000000}}"},
    {"HEALTHCHECK --interval=1d CMD x", "!time: unknown unit \"d\" in duration \"1d\""},
    {"HEALTHCHECK --retries=-1 CMD x", "!--retries cannot be negative (-1)"},
    {"HEALTHCHECK --retries=x CMD x", "!strconv.ParseInt: parsing \"x\": invalid syntax"},
    {"HEALTHCHECK --retries=0 CMD x", "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"x\"]}}"},
    {"HEALTHCHECK --foo=1 CMD x", "!unknown flag: --foo"},
    {"HEALTHCHECK --interval=1s --interval=2s CMD x", "!duplicate flag specified: --interval"},
    {"HEALTHCHECK --interval CMD x", "!missing a value on flag: --interval"},
    {"HEALTHCHECK --interval= CMD x", "{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"x\"]}}"},
    {"HEALTHCHECK CMD a@HEALTHCHECK NONE", "{\"Healthcheck\":{\"Test\":[\"NONE\"]}}"},
    {"ONBUILD", "!ONBUILD requires at least one argument"},
    {"ONBUILD run  a   b@onbuild  ENV a=b", "{\"OnBuild\":[\"run  a   b\",\"ENV a=b\"]}"},
    {"ONBUILD foo", "{\"OnBuild\":[\"foo\"]}"},
    {"ONBUILD ONBUILD RUN", "!Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"},
    {"ONBUILD FROM x", "!FROM isn't allowed as an ONBUILD trigger"},
    {"ONBUILD maintainer x", "!MAINTAINER isn't allowed as an ONBUILD trigger"},
    {"ONBUILD ENV a", "!ENV must have two arguments"},
    {"STOPSIGNAL 9", "{\"StopSignal\":\"9\"}"},
    {"STOPSIGNAL sigint", "{\"StopSignal\":\"sigint\"}"},
    {"STOPSIGNAL SIGRTMIN+3", "{\"StopSignal\":\"SIGRTMIN+3\"}"},
    {"STOPSIGNAL RTMIN+16", "!invalid signal: RTMIN+16"},
    {"STOPSIGNAL RTMAX-14", "{\"StopSignal\":\"RTMAX-14\"}"},
    {"STOPSIGNAL 0", "!invalid signal: 0"},
    {"STOPSIGNAL 65", "{\"StopSignal\":\"65\"}"},
    {"STOPSIGNAL -1", "{\"StopSignal\":\"-1\"}"},
    {"STOPSIGNAL $X", "!invalid signal: "},
    {"STOPSIGNAL FOO", "!invalid signal: FOO"},
    {"STOPSIGNAL", "!STOPSIGNAL requires exactly one argument"},
    {"RUN x", "!RUN is not a valid change command"},
    {"FROM x", "!FROM is not a valid change command"},
    {"ARG x=1", "!ARG is not a valid change command"},
    {"SHELL [\"a\"]", "!SHELL is not a valid change command"},
    {"COPY a b", "!COPY is not a valid change command"},
    {"foo", "!foo is not a valid change command"},
    {"run x", "!run is not a valid change command"},
    {"ENV --x=y a=b", "!unknown flag: --x"},
    {"CMD --x a", "!unknown flag: --x"},
    {"CMD -- --x", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"--x\"]}"},
    {"", "!file with no instructions"},
    {"# x", "!file with no instructions"},
    {"ENV a=b \\~ c=d~# comment~~LABEL x=y",
     "{\"Env\":[\"a=b\",\"c=d\"],\"Labels\":{\"x\":\"y\"}}"},
    {"CMD a \\~  b", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a   b\"]}"},
    {"CMD a \\~# c~  b", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a   b\"]}"},
    {"CMD a \\~", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a\"]}"},
    {"CMD a \\\\~CMD b", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"b\"]}"},
    {"ENV A=b~~~ENV C=d", "{\"Env\":[\"A=b\",\"C=d\"]}"},
};

static char **split(const char *text)
{
    CLEANUP_FREE char *copy = xstrdup(text);
    char **changes = NULL;

    for (char *c = copy; *c; c++)
        *c = *c == '~' ? '\n' : *c;
    for (char *rest = copy, *one; (one = strsep(&rest, "@"));)
        strv_add(&changes, one);
    return changes;
}

static bool is_as_docker(const char *text, const char *expected)
{
    CLEANUP(strv_cleanup) char **changes = split(text);
    CLEANUP_JSON json_t *config = json_object();
    CLEANUP_JSON json_t *wanted = NULL;
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *got = NULL;
    bool ok = changes_apply(config, changes, strv_count(changes), &err);

    if (*expected == '!') {
        if (!ok && str_eq(err.message, expected + 1))
            return true;
        print_error("%s: %s, expected %s\n", text, ok ? "no error" : err.message, expected + 1);
        return false;
    }
    wanted = json_parse(expected, strlen(expected), MIB, "it", NULL);
    assert_non_null(wanted);
    if (ok && json_equal(config, wanted))
        return true;
    got = json_text(config);
    print_error("%s: %s, expected %s\n", text, ok ? got : err.message, expected);
    return false;
}

static void test_as_docker(void **state UNUSED)
{
    size_t wrong = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        wrong += !is_as_docker(cases[i].changes, cases[i].expected);
    assert_int_equal(wrong, 0);
}

/* Each line doubles what the next one has. */
static void test_bombs(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_JSON json_t *config = json_object();
    CLEANUP_ERROR struct error err = {0};
    char *changes[1];

    strbuf_add_str(&text, "ENV A=0123456789abcdef\n");
    for (int i = 0; i < 64; i++)
        strbuf_add_str(&text, "ENV A=$A$A\n");
    changes[0] = text.data;
    assert_false(changes_apply(config, changes, 1, &err));
    assert_string_equal(err.reason, "INVALID_WORD");
}

/* One instruction whose words together would be gigabytes. */
static void test_bomb_of_words(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_JSON json_t *config = json_object();
    CLEANUP_ERROR struct error err = {0};
    char *changes[1];
    struct rusage before, after;

    strbuf_add_str(&text, "ENV A=");
    while (text.length < 16 * KIB)
        strbuf_add_char(&text, 'x');
    strbuf_add_str(&text, "\nENV B=");
    for (int i = 0; i < 60; i++)
        strbuf_add_str(&text, "$A");
    strbuf_add_str(&text, "\nLABEL");
    for (int i = 0; i < 200; i++)
        strbuf_add_str(&text, " a=$B");
    changes[0] = text.data;
    getrusage(RUSAGE_SELF, &before);
    assert_false(changes_apply(config, changes, 1, &err));
    getrusage(RUSAGE_SELF, &after);
    assert_string_equal(err.message, "the changes make a configuration of more than 4 MiB");
    assert_true(after.ru_maxrss - before.ru_maxrss < (long)(64 * MIB / KIB));
}

static void test_long(void **state UNUSED)
{
    CLEANUP_FREE char *text = xmalloc(CHANGES_MAX_BYTES + 2);
    CLEANUP_JSON json_t *config = json_object();
    CLEANUP_ERROR struct error err = {0};

    memset(text, 'a', CHANGES_MAX_BYTES + 1);
    memcpy(text, "ENV x=", 6);
    text[CHANGES_MAX_BYTES + 1] = '\0';
    assert_false(changes_apply(config, &text, 1, &err));
    assert_string_equal(err.message, "the changes are longer than 64 KiB");
    text[CHANGES_MAX_BYTES] = '\0';
    error_done(&err);
    assert_true(changes_apply(config, &text, 1, &err));
}

/* As deep as a text is long, it took all of the stack. */
static void test_onbuild_of_onbuilds(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP(instruction_done) struct instruction instruction = {0};
    CLEANUP_ERROR struct error err = {0};
    struct instruction_reader reader = {0};

    while (text.length < DOCKERFILE_MAX_BYTES - 8)
        strbuf_add_str(&text, "ONBUILD ");
    reader.rest = text.data;
    assert_int_equal(instruction_next(&reader, &instruction, &err), -1);
    assert_string_equal(err.message, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_docker),           cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_bomb_of_words),       cmocka_unit_test(test_long),
        cmocka_unit_test(test_onbuild_of_onbuilds),
    };

    return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
