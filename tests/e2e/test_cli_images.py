"""What davit says of images: lists, inspections, histories. test_docker_parity.py compares it with
what Docker says; here is what needs no Docker, and what strangers try."""

import contextlib
import json
import sqlite3
import subprocess

import images
import pytest

pytest_plugins = ["api"]

BUSYBOX = images.busybox_image()
ROOTFS = images.layer([images.file("content", "hello")])
NULLS = {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": "",
         "Volumes": None, "WorkingDir": ""}


def configured(config=None, layers=(ROOTFS,), created="2024-01-02T03:04:05Z", **more):
    """An image with nothing but this in its configuration."""
    whole = {"architecture": images.native_platform().split("/")[1], "os": "linux",
             "created": created, "config": config, **more,
             "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]}}
    return images.image(list(layers), config_bytes=json.dumps(whole).encode())


def pull(davit, registry, name, made, tag="latest"):
    reference = registry.push(name, made, tag)
    davit("pull", "-q", reference)
    return reference


def short(made):
    return images.sha256(made.config)[7:19]


def listed(davit, *arguments):
    return davit("images", "--format", "{{.Tag}}", *arguments).stdout.split()


def inspected(davit, *arguments):
    return json.loads(davit("image", "inspect", *arguments).stdout)


# --- Lists ---------------------------------------------------------------------------------------


@pytest.fixture
def three(davit, registry):
    """Three images of one repository, a year between them: {tag: reference}."""
    return {tag: pull(davit, registry, "list/three",
                      configured({"Labels": {"stage": tag, tag: "yes"}}, created=f"{year}-05-05T00:00:00Z"),
                      tag)
            for tag, year in (("middle", 2022), ("newest", 2023), ("oldest", 2021))}


def test_the_newest_comes_first(davit, three):
    assert listed(davit) == ["newest", "middle", "oldest"]
    assert listed(davit, three["middle"]) == ["middle"]
    assert listed(davit, three["middle"].rsplit(":", 1)[0]) == ["newest", "middle", "oldest"]
    assert listed(davit, "list/three") == []


FILTERS = [
    (["label=stage"], ["newest", "middle", "oldest"]),
    (["label=stage=middle"], ["middle"]),
    (["label=stage", "label=oldest=yes"], ["oldest"]),
    (["label=stage=middle", "label=oldest"], []),
    (["before={newest}"], ["middle", "oldest"]),
    (["before={newest}", "since={oldest}"], ["middle"]),
    (["since={oldest}", "since={middle}"], ["newest"]),
    (["before={newest}", "before={middle}"], ["oldest"]),
    (["until=2022-06-01"], ["middle", "oldest"]),
    (["until=24h", "since={middle}"], ["newest"]),
    (["until=-24h"], ["newest", "middle", "oldest"]),
    (["reference=*/list/*:[mn]*"], ["newest", "middle"]),
    (["reference=*/list/three:oldest", "reference=*/*/*:newest"], ["newest", "oldest"]),
    (["reference=*"], []),
    (["dangling=true"], []),
    (["dangling=false"], ["newest", "middle", "oldest"]),
    ([" LABEL = stage=middle "], ["middle"]),
    ([""], ["newest", "middle", "oldest"]),
]


def test_filters(davit, three):
    for filters, tags in FILTERS:
        arguments = [word for one in filters for word in ("--filter", one.format(**three))]
        assert listed(davit, *arguments) == tags, filters


def test_filters_name_images_by_id_too(davit, three):
    middle = inspected(davit, three["middle"])[0]["Id"]
    for name in (middle, middle[7:15]):
        assert listed(davit, "-f", f"before={name}") == ["oldest"]


NO_FILTERS = [
    ("x=y", "invalid filter 'x'"),
    ("label!=a", "invalid filter 'label!'"),
    ("dangling=maybe", "invalid filter 'dangling=[maybe]'"),
    ("until=noon", 'failed to parse value as time or duration: "noon"'),
    ("before=nope", "No such image: nope:latest"),
    ("since=UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
    ("reference=[", "syntax error in pattern"),
    ("label=" + "x" * 5000, "a filter of 5006 bytes, the limit is 4096"),
]


def test_what_is_no_filter(davit):
    for text, message in NO_FILTERS:
        answer = davit("images", "-f", text, check=False)
        assert answer.code == 1 and not answer.stdout
        assert answer.stderr.splitlines()[0] == f"Error response from daemon: {message}"
    answer = davit("images", "-f", "dangling", check=False)
    assert answer.code == 125
    assert ('invalid argument "dangling" for "-f, --filter" flag: bad format of filter (expected '
            "name=value)") in answer.stderr


def test_a_tag_that_moves_leaves_a_dangling_image(davit, registry):
    pull(davit, registry, "list/moves", configured({"User": "one"}))
    other = configured({"User": "two"})
    name = pull(davit, registry, "list/moves", other)
    # A digest is left, which makes a repository but no tag.
    both = davit("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}").stdout
    repository = name.rsplit(":", 1)[0]
    old = inspected(davit, "-f", "json", davit("images", "-qf", "dangling=true").stdout.strip())[0]
    assert sorted(both.splitlines()) == sorted([
        f"{repository} latest {short(other)}", f"{repository} <none> {old['Id'][7:19]}"])
    assert old["Config"]["User"] == "one" and old["RepoTags"] == []
    davit("rmi", old["RepoDigests"][0])
    assert davit("images", "-q", "-f", "dangling=true").stdout == ""


def test_digests_make_rows(davit, registry):
    made = configured({"User": "digests"})
    name = pull(davit, registry, "list/digests", made, "1")
    davit("tag", name, "other/name:2")
    rows = davit("images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}").stdout
    assert rows.splitlines() == [f"{name} {made.digest}", "other/name:2 <none>"]
    # Docker looks for these very characters.
    blank = davit("images", "--format", "{{.Tag}} {{ .Digest }}").stdout
    assert blank.splitlines() == ["1 <none>", "2 <none>"]
    table = davit("images", "--digests").stdout.splitlines()
    assert table[0].split()[:4] == ["REPOSITORY", "TAG", "DIGEST", "IMAGE"]


def test_columns(davit, registry):
    name = pull(davit, registry, "list/columns", configured({}, created="1970-01-01T00:00:00Z"))
    row = json.loads(davit("images", "--no-trunc", "--format", "json",
                           environment={"TZ": "UTC"}).stdout)
    row_id = inspected(davit, name)[0]["Id"]
    assert row.pop("CreatedSince").endswith(" years ago")
    assert row == {"Containers": "0", "CreatedAt": "1970-01-01 00:00:00 +0000 UTC",
                   "Digest": "<none>", "ID": row_id, "Repository": name.rsplit(":", 1)[0],
                   "SharedSize": "N/A", "Size": "5B", "Tag": "latest", "UniqueSize": "N/A",
                   "VirtualSize": "5B"}
    raw = davit("images", "--format", "raw", environment={"TZ": "UTC"}).stdout
    assert raw == (f"repository: {row['Repository']}\ntag: latest\nimage_id: {row_id[7:19]}\n"
                   "created_at: 1970-01-01 00:00:00 +0000 UTC\nvirtual_size: 5B\n\n")
    assert davit("images", "-q", "--no-trunc").stdout == row_id + "\n"


def test_a_format_of_the_configuration_file(davit, registry, tmp_path):
    """Docker's users keep their favourite there. What cannot be read is a warning, as in Docker."""
    image = images.image([images.layer([images.file("f", "configured")])])
    name = registry.push("configured", image)
    davit("pull", "-q", name)
    there = {"DOCKER_CONFIG": str(tmp_path)}
    (tmp_path / "config.json").write_text('{"imagesFormat": "{{.ID}} is {{.Tag}}"}')
    assert davit("images", environment=there).stdout == f"{image.id[7:19]} is latest\n"
    assert davit("images", "-q", environment=there).stdout == f"{image.id[7:19]}\n"
    assert davit("images", "--format", "{{.Tag}}", environment=there).stdout == "latest\n"
    (tmp_path / "config.json").write_text("{")
    result = davit("images", environment=there)
    assert result.stdout.startswith("REPOSITORY ")
    assert result.stderr.startswith(f"WARNING: {tmp_path}/config.json")


def test_an_image_without_a_date(davit, registry):
    pull(davit, registry, "list/undated", configured({}, created="0001-01-01T00:00:00Z"))
    assert davit("images").stdout.splitlines()[1].split()[3] == "N/A"
    assert davit("images", "--format", "{{.CreatedAt}}{{.CreatedSince}}").stdout == (
        "0001-01-01 00:00:00 +0000 UTC\n")


def test_containers_are_counted(davit, registry):
    name = pull(davit, registry, "list/held", BUSYBOX)
    columns = ("images", "--format", "{{.Containers}}")
    assert davit(*columns).stdout == "0\n"
    process = davit.start("run", "--rm", "-i", name, "sh", "-c", "echo up; cat",
                          stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    assert davit(*columns).stdout == "1\n"
    process.communicate(timeout=60)
    assert davit(*columns).stdout == "0\n"


def test_a_tree_is_refused_in_so_many_words(davit):
    answer = davit("images", "--tree", check=False)
    assert answer.code == 125 and answer.stderr.startswith("--tree is not supported by davit yet")


def test_long_lists_come_in_pages(davit, registry, api):
    names = [pull(davit, registry, f"list/pages{number:02}",
                  configured({"Labels": {"x": "y" * 60_000, "n": str(number)}}))
             for number in range(20)]
    stub = api.stub("Images/List", "unary_unary", api.images.ListImagesResponse)
    pages, token = [], ""
    while not pages or token:
        page = stub(api.images.ListImagesRequest(labels=True, page_token=token))
        assert page.ByteSize() < 400_000
        pages.append([one.repo_tags[0] for one in page.images])
        assert all(json.loads(one.labels)["x"] == "y" * 60_000 for one in page.images)
        token = page.next_page_token
    assert len(pages) == 5 and sorted(sum(pages, [])) == names
    # Without labels they fit on one; the place of a page may be that of an image that has gone.
    assert len(stub(api.images.ListImagesRequest()).images) == 20
    page = stub(api.images.ListImagesRequest(labels=True))
    davit("rmi", page.images[-1].repo_tags[0])
    rest = stub(api.images.ListImagesRequest(labels=True, page_token=page.next_page_token))
    assert [one.repo_tags[0] for one in rest.images] == pages[1]
    for bad in ("x", "1", "5:", ":sha256:12", "9:sha256:xyz"):
        with pytest.raises(Exception, match="this page token is none"):
            stub(api.images.ListImagesRequest(page_token=bad))


# --- Inspect -------------------------------------------------------------------------------------


def test_all_of_an_image(davitd, davit, registry):
    config = {
        "User": "web:web", "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Env": ["A=<b>", "C=é"],
        "Cmd": ["sh", "-c", 'echo "x"'], "Entrypoint": ["/e"], "Volumes": {"/v": {}},
        "WorkingDir": "/w", "Labels": {"b": "2", "a": "1"}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000, "Retries": 3},
        "OnBuild": ["RUN x"], "Shell": ["/bin/bash", "-c"], "ArgsEscaped": True,
    }
    made = configured({**config, "Hostname": "h", "Tty": True, "StopTimeout": 5}, author="Me",
                      comment="a comment", docker_version="27.0",
                      created="2024-01-02T03:04:05.120000000+02:00", **{"os.version": "1"})
    name = pull(davit, registry, "inspect/all", made, "1")
    davit("tag", name, "inspect/all:2")
    document = inspected(davit, name)
    assert document == inspected(davit, "inspect/all:2") == inspected(davit, short(made))
    assert document == json.loads(davit("inspect", name).stdout)
    tagged = document[0]["Metadata"].pop("LastTagTime")
    assert tagged > "2026" and tagged.endswith("Z")
    assert document == [{
        "Id": images.sha256(made.config), "RepoTags": [name, "inspect/all:2"],
        "RepoDigests": [f"{name.rsplit(':', 1)[0]}@{made.digest}"], "Parent": "",
        "Comment": "a comment", "Created": "2024-01-02T03:04:05.12+02:00", "DockerVersion": "27.0",
        "Author": "Me", "Architecture": images.native_platform().split("/")[1], "Os": "linux",
        "OsVersion": "1", "Size": 5, "GraphDriver": {"Data": {}, "Name": document[0]["GraphDriver"]["Name"]},
        "RootFS": {"Type": "layers", "Layers": [ROOTFS.diff_id]}, "Metadata": {}, "Config": config}]
    assert davit("info", "-f", "{{.Driver}}").stdout.strip() == document[0]["GraphDriver"]["Name"]


def test_the_layout(davit, registry):
    name = pull(davit, registry, "inspect/layout", configured({"Cmd": ["sh"]}))
    text = davit("image", "inspect", name).stdout
    assert text == json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n"
    compact = davit("inspect", "-f", "json", name).stdout
    assert compact == json.dumps(json.loads(text), separators=(",", ":")) + "\n"
    assert list(json.loads(text)[0]) == [
        "Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "DockerVersion", "Author",
        "Architecture", "Os", "Size", "GraphDriver", "RootFS", "Metadata", "Config"]


def test_an_empty_configuration(davit, registry):
    name = pull(davit, registry, "inspect/empty", configured(None, created=None))
    document = inspected(davit, name)[0]
    assert document["Config"] == NULLS and "Created" not in document
    assert list(document["Config"]) == sorted(NULLS)


def test_several_of_which_some_are_not_there(davit, registry):
    name = pull(davit, registry, "inspect/one", configured({}))
    for command, missing, upper in (
            (["inspect"], "Error: No such object: ", "Error: No such object: UPPER"),
            (["image", "inspect"], "Error response from daemon: No such image: ",
             "Error response from daemon: invalid reference format: repository name "
             "(library/UPPER) must be lowercase")):
        answer = davit(*command, "nope", name, "UPPER", "-f", "{{.Size}}", check=False)
        suffix = "" if command == ["inspect"] else ":latest"
        assert answer.code == 1 and answer.stdout == "5\n"
        assert answer.stderr == f"{missing}nope{suffix}\n{upper}\n"
        nothing = davit(*command, "nope", check=False)
        assert nothing.code == 1 and nothing.stdout == "[]\n"
        assert davit(*command, "-f", "{{.Id}}", "nope", check=False).stdout == "\n"
        assert len(json.loads(davit(*command, name, "nope", name, check=False).stdout)) == 2


def test_types(davit, registry):
    name = pull(davit, registry, "inspect/types", configured({}))
    sized = davit("inspect", "--type", "image", "-s", "-f", "{{.Size}}", name)
    assert sized.stdout == "5\n" and sized.stderr == "WARNING: --size ignored for image\n"
    for kind, message in (("container", "No such container: x"), ("network", "network x not found"),
                          ("volume", "get x: no such volume")):
        answer = davit("inspect", "--type", kind, "x", check=False)
        assert answer.code == 1 and answer.stdout == "[]\n"
        assert answer.stderr == f"Error response from daemon: {message}\n"
    for kind, message in (("foo", 'unknown type: "foo": must be one of "config", "container", '),
                          ("", 'type is empty: must be one of "config", "container", ')):
        answer = davit("inspect", "--type", kind, name, check=False)
        assert answer.code == 1 and answer.stderr.startswith(message) and not answer.stdout


def test_formats(davit, registry):
    name = pull(davit, registry, "inspect/formats", configured({"Labels": {"a": "1"}, "Env": ["X=y"]}))
    for text, result in (
            ("{{.Config.Labels.a}}", "1"), ("{{index .Config.Labels \"a\"}}", "1"),
            ("{{json .Config.Env}}", '["X=y"]'), ("{{range .Config.Env}}{{.}};{{end}}", "X=y;"),
            ("{{.RootFS.Type}} {{len .RootFS.Layers}}", "layers 1"),
            ("{{.Created}}", "2024-01-02T03:04:05Z"), ("{{.Architecture}}", "")):
        answer = davit("inspect", "--format", text, name).stdout
        assert answer.endswith("\n") and result in answer
    broken = davit("inspect", "-f", "{{.Nope}}", name, check=False)
    assert broken.code == 1 and broken.stdout == "\n"
    assert broken.stderr == ('template parsing error: template: :1:2: executing "" at <.Nope>: map '
                             'has no entry for key "Nope"\n')
    assert davit("inspect", "-f", "{{", name, check=False).code == 64


def test_platforms(davit, registry):
    native = images.native_platform()
    other = "linux/arm64" if native == "linux/amd64" else "linux/amd64"
    name = pull(davit, registry, "inspect/platform",
                configured({}, history=[{"created_by": "x"}]))
    for command in (["image", "inspect", "-f", "{{.Size}}"], ["history", "-q"]):
        assert davit(*command, "--platform", native, name).stdout
        answer = davit(*command, "--platform", other, name, check=False)
        assert answer.code == 1
        assert answer.stderr == (
            f"Error response from daemon: image with reference {name} was found but its platform "
            f"({native}) does not match the specified platform ({other})\n")
        assert davit(*command, "--platform", "a/b/c/d", name, check=False).code == 1
    assert "unknown flag: --platform" in davit("inspect", "--platform", native, name,
                                               check=False).stderr


IMPOSSIBLE = [
    ({"Labels": {"a": 1}}, 'config.Labels["a"] is a number, not a string'),
    ({"Labels": {"\x1b[2J\n": []}}, r'config.Labels["\u001b[2J\n"] is an array, not a string'),
    ({"Labels": ["a"]}, "config.Labels is an array, not an object"),
    ({"Volumes": ["/a"]}, "config.Volumes is an array, not an object"),
    ({"ExposedPorts": {"80": 1}}, 'config.ExposedPorts["80"] is a number, not an object'),
    ({"Healthcheck": {"Interval": "30s"}},
     "config.Healthcheck.Interval is a string, not a whole number"),
    ({"OnBuild": "RUN x"}, "config.OnBuild is a string, not an array of strings"),
    ({"ArgsEscaped": 1}, "config.ArgsEscaped is a number, not a boolean"),
    ({"Labels": {"k" * 9999: 1}}, 'config.Labels["' + "k" * 100 + '"] is a number'),
]


def test_what_cannot_be_is_named(davit, registry):
    for config, message in IMPOSSIBLE:
        made = configured(config)
        name = pull(davit, registry, "inspect/hostile", made)
        answer = davit("image", "inspect", name, check=False)
        assert answer.code == 1 and answer.stdout == "[]\n"
        assert answer.stderr.startswith("Error response from daemon: the configuration of image "
                                        f"sha256:{short(made)}: {message}")
        assert len(answer.stderr) < 1000
        assert len(davit("images", "-q", "-f", "label=a").stdout.split()) <= 1
        assert davit("history", name).code == 0


def test_nothing_steers_the_terminal(davit, registry):
    nasty = "\x1b[2J\x07\u009b31m\r\n\t\u202e<&>\u2028\x7f"
    made = configured({"Labels": {nasty: nasty}, "Env": ["A=" + nasty], "User": nasty}, author=nasty,
                      history=[{"created_by": nasty, "comment": nasty}])
    name = pull(davit, registry, "inspect/nasty", made)
    texts = [davit("image", "inspect", name).stdout, davit("inspect", "-f", "json", name).stdout]
    for text in texts:
        assert not set(text) & set("\x1b\x07\u009b\r\x7f")
        document = json.loads(text)[0]
        assert document["Config"]["Labels"] == {nasty: nasty} and document["Author"] == nasty
    texts += [davit("history", name).stdout, davit("history", "--no-trunc", name).stdout,
              davit("inspect", "-f", "{{.Author}}{{.Config.Labels}}", name).stdout]
    for text in texts:
        assert not set(text) & set("\x1b\x07\u009b\r\x7f")


def test_the_largest_configuration(davit, registry):
    made = configured({"Env": ["A=" + "x" * 3_900_000]})
    name = pull(davit, registry, "inspect/large", made)
    assert inspected(davit, name)[0]["Config"]["Env"] == ["A=" + "x" * 3_900_000]
    assert davit("history", name).code == 0


def test_a_damaged_configuration(davitd, davit, registry):
    name = pull(davit, registry, "inspect/damaged", configured({"User": "one"}))
    davitd.stop()
    with contextlib.closing(sqlite3.connect(davitd.data_root / "davit.db")) as database, database:
        database.execute("UPDATE images SET config = CAST(replace(CAST(config AS TEXT), 'one', "
                         "'two') AS BLOB)")
    davitd.start()
    for command in (["inspect"], ["image", "inspect"], ["history"]):
        answer = davit(*command, name, check=False)
        assert answer.code == 1 and "is damaged: its config has changed" in answer.stderr
    assert listed(davit) == ["latest"]


# --- History -------------------------------------------------------------------------------------


def steps(davit, *arguments):
    lines = davit("history", "--format", "json", *arguments).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_steps(davit, registry):
    layers = [images.layer([images.file("a", b"x" * 1000)]), images.layer([images.file("b", b"y" * 2345)])]
    long = "RUN /bin/sh -c echo\t" + "é" * 60
    made = configured({}, layers, history=[
        {"created": "2020-01-01T00:00:00Z", "created_by": "first", "comment": "base"},
        {"created": "2020-01-02T00:00:00.5Z", "created_by": "ENV A=b", "empty_layer": True},
        {"created_by": long}])
    name = pull(davit, registry, "history/steps", made)
    row_id = images.sha256(made.config)
    top, env, base = steps(davit, name)
    assert [one["ID"] for one in (top, env, base)] == [row_id[7:19], "<missing>", "<missing>"]
    assert [one["Size"] for one in (top, env, base)] == ["2.35kB", "0B", "1kB"]
    assert [one["CreatedSince"] for one in (top, env, base)][0] == "N/A"
    assert top["CreatedBy"] == "RUN /bin/sh -c echo " + "é" * 24 + "…"
    assert env["CreatedAt"] == "2020-01-02T00:00:00Z" and env["CreatedSince"].endswith(" years ago")
    assert base["Comment"] == "base"
    whole = steps(davit, "--no-trunc", "--human=false", name)
    assert [one["Size"] for one in whole] == ["2345", "0", "1000"]
    assert whole[0]["ID"] == row_id and whole[0]["CreatedBy"] == long.replace("\t", " ")
    assert whole[0]["CreatedSince"] == whole[0]["CreatedAt"] == "1970-01-01T00:00:00Z"
    assert davit("history", "-q", name).stdout == f"{row_id[7:19]}\n<missing>\n<missing>\n"
    assert davit("history", "--human=false", name).stdout.startswith("IMAGE          CREATED AT  ")
    assert davit("history", name).stdout.startswith("IMAGE          CREATED       CREATED BY  ")


def test_no_steps(davit, registry):
    name = pull(davit, registry, "history/none", configured({}))
    assert davit("history", name).stdout == "IMAGE     CREATED   CREATED BY   SIZE      COMMENT\n"
    assert davit("history", "-q", name).stdout == ""


IMPOSSIBLE_HISTORIES = [
    ([{}, {}], "its history has more layers than the image: 1"),
    ({}, "history is an object, not an array"),
    ([5], "history[0] is a number, not an object"),
    ([{"created_by": 5}], "history[0].created_by is a number, not a string"),
    ([{"empty_layer": "no"}], "history[0].empty_layer is a string, not a boolean"),
]


def test_a_history_that_cannot_be(davit, registry):
    for history, message in IMPOSSIBLE_HISTORIES:
        made = configured({}, history=history)
        name = pull(davit, registry, "history/hostile", made)
        answer = davit("history", name, check=False)
        assert answer.code == 1 and not answer.stdout
        assert answer.stderr.startswith("Error response from daemon: the configuration of image "
                                        f"sha256:{short(made)}: {message}\n")
