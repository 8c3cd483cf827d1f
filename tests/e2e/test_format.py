"""--format and tables as davit's users meet them; what templates make of data is compared with
Docker's in test_format_docker.py."""

import pytest

pytest_plugins = ("fake_daemon",)

REPOSITORY = "registry.example.com:5000/group/with/a/rather/long/name"
DIGEST = "sha256:" + "d" * 64


@pytest.fixture(name="one_image")
def one_image_fixture(fake):
    fake.list = lambda request, context: fake.images.ListImagesResponse(images=[
        fake.images.Image(id="sha256:" + "0123456789abcdef" * 4, repo_tags=[f"{REPOSITORY}:v1.0"],
                          repo_digests=[f"{REPOSITORY}@{DIGEST}"], size_bytes=4261502,
                          created_unix_ns=1600000000 * 10**9)])
    return fake


def lines_of(terminal):
    assert terminal.wait() == 0
    return terminal.output.splitlines()


@pytest.mark.parametrize("columns", [70, 80, 100])
def test_tables_fit_the_terminal(one_image, cli, columns):
    lines = lines_of(cli.pty("images", columns=columns))
    assert [len(line) for line in lines] == [len(lines[0]), columns], lines
    assert lines[1].startswith(REPOSITORY[:columns - 55]) and "… " in lines[1]
    assert "v1.0      0123456789ab   " in lines[1] and lines[1].endswith("4.26MB")


def test_whole_where_it_fits_or_is_asked_for(one_image, cli):
    for options, columns in [([], 200), (["--no-trunc"], 60), (["--format", "{{.Repository}}"], 20)]:
        lines = lines_of(cli.pty("images", *options, columns=columns))
        assert lines[-1].startswith(REPOSITORY) and "…" not in lines[-1]
    # Nobody wants a piece of a digest.
    assert DIGEST in lines_of(cli.pty("images", "--digests", columns=80))[1]


def test_whole_where_there_is_no_terminal(one_image, cli):
    assert REPOSITORY in cli("images", environment={"COLUMNS": "40"}).stdout


@pytest.mark.parametrize("template, error", [
    ("{{.Nope}}", "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type "
                  "*events.Message"),
    ("{{.ID", "template: :1: unclosed action"),
])
def test_formats_of_events_are_tried_at_once(fake, cli, template, error):
    """The daemon, which has no such call, is not asked."""
    result = cli("events", "--format", template, check=False)
    assert (result.code, result.stderr) == (64, f"Error parsing format: {error}\n")


def test_templates_that_would_not_end(one_image, cli):
    result = cli("images", "--format", "{{range 10000}}{{range 10000}}{{end}}{{end}}", check=False)
    assert result.code == 1 and "too many steps: the limit is 2000000" in result.stderr
    result = cli("images", "--format", "{{pad .Tag 1000000000 0}}", check=False)
    assert result.code == 1 and "the result is too long: the limit is 16777216" in result.stderr


def test_deep_templates(cli):
    """davit's stack is that of a task, not a thread's."""
    ifs = "{{if true}}" * 60 + '{{template "%s"}}' + "{{end}}" * 60
    each_other = "{{define \"a\"}}%s{{end}}{{define \"b\"}}%s{{end}}{{template \"a\"}}" % (
        ifs % "b", ifs % "a")
    parens = "(" * 62 + "print 1" + ")" * 62
    calls = "(print " * 61 + "1" + ")" * 61
    nested = '{{define "b"}}{{%s}}{{end}}%s{{template "b"}}%s' % (
        calls, "{{with 1}}" * 60, "{{end}}" * 60)
    for template, code in [(each_other, 64), (nested, 1), ("{{%s}}" % parens, 1), ("(" * 99999, 1),
                           ("{{" + "(" * 99999, 64), ("{{if 1}}" * 9999, 64)]:
        result = cli("events", "--format", template, check=False)
        assert result.code == code, result.stderr[:1000]
    assert "exceeded maximum template depth (128)" in cli(
        "events", "--format", each_other, check=False).stderr
