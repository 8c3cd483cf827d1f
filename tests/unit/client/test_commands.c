/* The table of commands and what is made from it: help, suggestions, completion. */
#include "tests/unit/test.h"

#include <ctype.h>

#include "client/complete.h"
#include "client/help.h"

#define WORDS(...) ((char *const[]){__VA_ARGS__, NULL})

/* --- The table ---------------------------------------------------------------------------------
 */

static void check_flag(const struct flag *flag, const struct flag *before)
{
    assert_true(strlen(flag->name) > 1);
    for (const char *c = flag->name; *c; c++)
        assert_true(islower((unsigned char)*c) || *c == '-');
    if (before) /* the help is in alphabetical order */
        assert_true(strcmp(before->name, flag->name) < 0);
    assert_true(flag->unsupported || !str_empty(flag->help));
    if (flag->choices || flag->suggestions || flag->completes)
        assert_true(flag->type != FLAG_BOOL);
    if (flag->type == FLAG_BOOL && flag->fallback)
        assert_string_equal(flag->fallback, "true");
    if (!flag->unsupported)
        assert_false(str_ends(flag->help, "."));
}

static void check_command(const struct command *command)
{
    assert_false(str_empty(command->summary));
    assert_false(str_ends(command->summary, "."));
    assert_non_null(command->await_run);
    assert_true(command->max_args == ANY_NUMBER || command->min_args <= command->max_args);
    for (size_t i = 0; i < command->flag_count; i++) {
        check_flag(&command->flags[i], i ? &command->flags[i - 1] : NULL);
        for (size_t k = 0; k < i; k++) {
            assert_true(!command->flags[i].shorthand ||
                        command->flags[i].shorthand != command->flags[k].shorthand);
        }
    }
}

static void test_table_is_well_formed(void **state UNUSED)
{
    assert_null(command_groups[0].name);
    for (size_t i = 0; i < command_group_count; i++) {
        const struct command_group *group = &command_groups[i];
        assert_false(str_empty(group->summary));
        for (size_t k = 0; k < group->count; k++) {
            check_command(group->names[k].command);
            if (k && !group->names[k].hidden && !group->names[k - 1].common)
                assert_true(strcmp(group->names[k - 1].name, group->names[k].name) < 0);
        }
    }
}

static void test_find(void **state UNUSED)
{
    const struct command_group *image = command_group_find("image");
    assert_ptr_equal(command_find(image, "ls"), &images_command);
    assert_ptr_equal(command_find(image, "list"), &images_command);
    assert_ptr_equal(command_find(&command_groups[0], "images"), &images_command);
    assert_ptr_equal(command_find(&command_groups[0], "rmi"), command_find(image, "rm"));
    assert_null(command_find(&command_groups[0], "ls"));
    assert_null(command_find(image, ""));
    assert_null(command_group_find("nope"));
    assert_null(command_group_find(""));
}

static void test_suggestions(void **state UNUSED)
{
    static const struct {
        const char *group, *typed, *nearest;
    } cases[] = {
        {NULL, "pul", "pull"},           {NULL, "plul", "pull"},
        {NULL, "iamges", "images"},      {NULL, "rim", "rmi"},
        {NULL, "contaner", "container"}, {NULL, "ps", NULL},
        {NULL, "compose", NULL},         {NULL, "", NULL},
        {"image", "rn", NULL},           {NULL, "versions", "version"},
        {"image", "lss", "ls"},          {"image", "l", "ls"},
        {NULL, "__complet", NULL},       {NULL, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct command_group *group =
            cases[i].group ? command_group_find(cases[i].group) : &command_groups[0];
        const char *nearest = command_suggest(group, cases[i].typed);
        if (!str_eq(nearest, cases[i].nearest))
            fail_msg("%s: %s", cases[i].typed, nearest ? nearest : "(none)");
    }
}

static void test_commands_to_come(void **state UNUSED)
{
    const struct command_group *top = &command_groups[0];
    assert_true(command_is_to_come(top, "ps"));
    assert_true(command_is_to_come(top, "wait"));
    assert_false(command_is_to_come(top, "p"));
    assert_false(command_is_to_come(top, ""));
    assert_false(command_is_to_come(top, "ps rename"));
    assert_true(command_is_to_come(command_group_find("container"), "ls"));
    assert_false(command_is_to_come(command_group_find("system"), "ps"));
    /* Who adds one takes it off the list. */
    for (size_t i = 0; i < command_group_count; i++) {
        for (size_t k = 0; k < command_groups[i].count; k++)
            assert_false(command_is_to_come(&command_groups[i], command_groups[i].names[k].name));
        assert_false(command_groups[i].name && command_is_to_come(top, command_groups[i].name));
    }
}

/* --- Help --------------------------------------------------------------------------------------
 */

static void test_group_help(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0}, top = {0};
    help_group(command_group_find("system"), 79, &text);
    assert_string_equal(strbuf_text(&text),
                        "Usage:  davit system COMMAND\n\nManage davit\n\nCommands:\n"
                        "  df          Show davit disk usage\n"
                        "  events      Get real time events from the server\n"
                        "  info        Display system-wide information\n"
                        "  prune       Remove unused data\n"
                        "  verify      Verify what is stored of images, of all if none is named\n\n"
                        "Run 'davit system COMMAND --help' for more information on a command.\n");
    help_group(&command_groups[0], 79, &top);
    assert_true(str_starts(strbuf_text(&top), "Usage:  davit [OPTIONS] COMMAND\n"));
    assert_non_null(strstr(strbuf_text(&top), "\n  image       Manage images\n"));
    assert_non_null(strstr(strbuf_text(&top), "  -H, --host string   Daemon socket"));
    assert_null(strstr(strbuf_text(&top), "__complete"));
}

static void test_command_help(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    help_command(&rmi_command, "davit image rm", 79, &text);
    assert_string_equal(strbuf_text(&text),
                        "Usage:  davit image rm [OPTIONS] IMAGE [IMAGE...]\n\n"
                        "Remove one or more images\n\n"
                        "Aliases:\n  davit image rm, davit image remove, davit rmi\n\n"
                        "Options:\n  -f, --force      Force removal of the image\n"
                        "      --no-prune   Do not delete untagged parents\n");
}

/* Every line of every help fits the width, down to where a word no longer does. */
static void test_help_fits(void **state UNUSED)
{
    for (size_t width = 79; width <= 200; width += 11) {
        for (size_t i = 0; i < command_groups[0].count; i++) {
            CLEANUP_STRBUF struct strbuf text = {0};
            help_command(command_groups[0].names[i].command, "davit x", width, &text);
            for (const char *line = strbuf_text(&text); *line; line += strcspn(line, "\n") + 1)
                assert_true(strcspn(line, "\n") <= width);
        }
    }
}

/* --- Completion --------------------------------------------------------------------------------
 */

static void completes_with(char *const *words, enum completion wanted, const char *expected)
{
    CLEANUP_STRBUF struct strbuf text = {0}, names = {0};
    assert_int_equal(complete_words(words, &text).wants, wanted);
    for (const char *line = strbuf_text(&text); *line; line += strcspn(line, "\n") + 1)
        strbuf_addf(&names, "%s%.*s", names.length ? " " : "", (int)strcspn(line, "\t"), line);
    assert_string_equal(strbuf_text(&names), expected);
}

static void completes(char *const *words, bool images, const char *expected)
{
    completes_with(words, images ? COMPLETE_IMAGES : COMPLETE_NOTHING, expected);
}

static void test_completion(void **state UNUSED)
{
    completes(WORDS("im"), false, "images import image");
    completes(WORDS("-H", "unix:///x", "ver"), false, "version");
    completes(WORDS("--host=unix:///x", "ver"), false, "version");
    completes(WORDS("--"), false, "--host --version --help");
    completes(WORDS("help", "ima"), false, "images image");
    completes(WORDS("pull", "--q"), false, "--quiet");
    completes(WORDS("pull", "--progress", ""), false, "auto tty plain json");
    completes(WORDS("pull", "--progress=t"), false, "--progress=tty");
    completes(WORDS("image", "pull", ""), true, "");
    completes(WORDS("pull", "--de"), false, "--detach --detach-on-interrupt");
    completes(WORDS("pull", "--limit-rate", ""), false, "");
    completes(WORDS("log"), false, "login logout");
    completes(WORDS("login", "--pass"), false, "--password --password-stdin");
    completes(WORDS("search", "--"), false, "--filter --format --limit --no-trunc --help");
    completes(WORDS("manifest", ""), false, "inspect");
    completes(WORDS("manifest", "inspect", "--v"), false, "--verbose");
    completes(WORDS("pull", "x", ""), false, "");
    completes(WORDS("rmi", "x", "y"), true, "");
    completes(WORDS("push", "--compression", ""), false, "gzip zstd");
    completes(WORDS("tag", ""), true, "");
    completes(WORDS("system", ""), false, "df events info prune verify");
    completes(WORDS("system", "verify", "x", ""), true, "");
    completes(WORDS("system", "verify", "--r"), false, "--repair");
    completes(WORDS("system", "df", "--format", ""), false, "json table");
    completes(WORDS("run", "--rm", "-e", "A=1", ""), true, "");
    completes(WORDS("run", "--network", "h"), false, "host");
    completes(WORDS("run", "--rm", "image", "-"), false, ""); /* the container's own */
    completes(WORDS("run", "-it"), false, "");
    completes(WORDS("run", "--t"), false, ""); /* what is not supported is not offered */
    completes(WORDS("jobs", ""), false, "cancel ls update watch");
    completes(WORDS("jobs", "--a"), false, "--all");
    completes(WORDS("jobs", "ls", "--q"), false, "--quiet");
    completes_with(WORDS("jobs", "cancel", "x", ""), COMPLETE_JOBS, "");
    completes(WORDS("pull", "--platform", "linux/arm/"), false,
              "linux/arm/v5 linux/arm/v6 linux/arm/v7");
    completes(WORDS("events", "-f", "t"), false, "type=image");
    completes(WORDS("events", "-f", "ima"), false, "image=");
    completes(WORDS("events", "-f", "label="), false, "");
    completes(WORDS("events", "--filter=ima"), false, "--filter=image=");
    completes(WORDS("events", "-f", "image=x"), true, "");
    completes_with(WORDS("run", "--env-file", "x"), COMPLETE_FILES, "");
    completes_with(WORDS("run", "--env-file=x"), COMPLETE_FILES, "");
    completes(WORDS("tag", "a", "b", ""), false, ""); /* takes no more */
    completes(WORDS("nope", ""), false, "");
    completes(WORDS("_"), false, "");
    completes(WORDS("container", ""), false, "run");
}

static void test_completion_goes_on_behind_what_is_typed(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    assert_int_equal(complete_words(WORDS("events", "--filter=image=x"), &text).skip, 15);
    assert_int_equal(complete_words(WORDS("events", "-f", "image=x"), &text).skip, 6);
    assert_int_equal(complete_words(WORDS("rmi", "image=x"), &text).skip, 0);
    assert_int_equal(text.length, 0);
}

static void test_ids_are_told_from_names(void **state UNUSED)
{
    static const char *const ids[] = {"3", "3f", "deadbeef", "sha256:", "sha256:3f"};
    static const char *const names[] = {"", "busybox", "3g", "de.", "sha2"};
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        assert_true(complete_is_id(ids[i]));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_false(complete_is_id(names[i]));
}

/* What completion offers is what parsing takes: each flag of each command. */
static void test_completed_flags_parse(void **state UNUSED)
{
    for (size_t i = 0; i < command_groups[0].count; i++) {
        const struct command *command = command_groups[0].names[i].command;
        CLEANUP_STRBUF struct strbuf text = {0};
        complete_words(WORDS((char *)command_groups[0].names[i].name, "--"), &text);
        for (char *line = text.data; line && *line;) {
            CLEANUP_ERROR struct error err = {0};
            CLEANUP(flags_done) struct flags flags = {0};
            CLEANUP_FREE char *word = xstrndup(line, strcspn(line, "\t"));
            line += strcspn(line, "\n") + 1;
            if (!flags_parse(command->flags, command->flag_count, false, WORDS(word), &flags, &err))
                assert_true(str_starts(err.message, "flag needs an argument"));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_well_formed),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_commands_to_come),
        cmocka_unit_test(test_group_help),
        cmocka_unit_test(test_command_help),
        cmocka_unit_test(test_help_fits),
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_completed_flags_parse),
        cmocka_unit_test(test_completion_goes_on_behind_what_is_typed),
        cmocka_unit_test(test_ids_are_told_from_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
