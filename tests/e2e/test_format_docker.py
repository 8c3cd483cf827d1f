"""Templates of --format as Docker's own command line evaluates them: the same output, error and
exit code for each of a list of them, format_templates.json, and for as many that a grammar makes
up. `docker inspect` is given an image by a daemon that knows nothing else; davit's evaluator is
asked by a small program, davit-template-program, for all of them at once. Formats of lists are
those of `images`, where davit is given the same images by a daemon of the same kind.
"""

import concurrent.futures
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import socketserver
import subprocess
import threading

import pytest

from conftest import BIN_DIR
from docker_engine import docker_path

pytest_plugins = ("fake_daemon",)

SEED = 20240117
GENERATED = 150
BATCH = 40
NEW_VERSION = 27  # Docker's command line whose Go and types davit follows
SEPARATOR = "\x1e"

# "cases" are [template, its text, its error, whether it needs NEW_VERSION]; test_template.c has
# them, too. Of "document", the command line knows nothing of "Extra": it sees that as a map only.
KNOWN = json.loads(pathlib.Path(__file__).with_name("format_templates.json").read_text())
DOCUMENT = KNOWN["document"]
IMAGES = [
    {"Id": "sha256:" + "0123456789abcdef" * 4, "RepoTags": ["busybox:1"],
     "RepoDigests": ["busybox@sha256:" + "d" * 64], "Created": 1700000000, "Size": 4261502},
    {"Id": "sha256:" + "1" * 64, "RepoTags": ["registry.example.com:5000/a/long/name:v1.2.3"],
     "RepoDigests": [], "Created": 1600000000, "Size": 187912345},
    {"Id": "sha256:" + "2" * 64, "RepoTags": [], "RepoDigests": [], "Created": 1500000000,
     "Size": 999},
]

RESULTS = [
    {"name": "busybox", "description": "Busybox <base> image.", "star_count": 3300,
     "is_official": True, "is_automated": False},
    {"name": "e\u0301", "description": "wide \uff21\uff22 and \U0001f600 and e\u0301",
     "star_count": 12, "is_official": False, "is_automated": False},
    {"name": "empty", "description": "", "star_count": 1, "is_official": False,
     "is_automated": False},
    {"name": "\u4f60/\u597d", "description": "\u8fd9\u662f\u4e00\u4e2a\u5f88\u957f" * 8,
     "star_count": 0, "is_official": False, "is_automated": False},
]

# What is not as in Docker, and why: davit counts characters, where Docker may leave half of one.
DEVIATIONS = r"truncate \.(Author|Comment)"
# What Docker shows of that is where it lies in memory.
POINTER = re.compile(r"\b0xc?[0-9a-f]{9,}\b")


# --- Docker's side -------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *arguments):
        pass

    def answer(self):
        path = re.sub(r"^/v[0-9.]+", "", self.path).split("?")[0]
        documents = {"/_ping": "OK", "/images/image/json": DOCUMENT,
                     "/images/search": RESULTS, "/images/json":
                     [{**one, "SharedSize": -1, "VirtualSize": one["Size"]} for one in IMAGES]}
        body = json.dumps(documents.get(path, {"message": "none"})).encode()
        self.send_response(200 if path in documents else 404)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = answer  # noqa: N815


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)


def same_error(text):
    """Which types they are Go says since 1.25 or so, and davit."""
    return re.sub("(incompatible types for comparison): .* and .*", r"\1", text)


class Docker:
    def __init__(self, program, directory):
        self.program = program
        self.server = Server(str(directory / "docker.sock"), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05])
        self.thread.start()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "TZ": "UTC",
                            "DOCKER_HOST": f"unix://{directory}/docker.sock"}
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        self.version = int(re.search(r"version (\d+)", version.stdout).group(1))

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def inspect(self, template):
        return self.run("image", "inspect", "-f", template, "image")

    def run(self, *arguments):
        """What it prints, its error and its exit code."""
        done = subprocess.run([self.program, *arguments], env=self.environment,
                              capture_output=True, check=False)
        # davit's errors are one line, whatever they are about.
        error = done.stderr.decode()[:-1].replace("\n", "\\n").replace("\t", "\\t")
        error = same_error(error)
        return (done.stdout.decode(errors="surrogateescape"), error and error + "\n",
                done.returncode)


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    program = shutil.which("docker", path=docker_path())
    if not program:
        pytest.skip("there is no docker")
    one = Docker(program, tmp_path_factory.mktemp("docker"))
    yield one
    one.stop()


# --- davit's side --------------------------------------------------------------------------------


def evaluate(templates):
    """As Docker.inspect(), all at once."""
    program = BIN_DIR.parent / "tests/davit-template-program"
    done = subprocess.run([program], input=json.dumps({"data": DOCUMENT, "templates": templates}),
                          capture_output=True, text=True, check=True)
    results = []
    for template, (text, error) in zip(templates, json.loads(done.stdout)):
        if error is None:
            results.append((text + "\n", "", 0))
        else:
            while_parsing = not re.match(r"template parsing error: template: :\d+:\d+: exec", error)
            results.append(("" if while_parsing else "\n", same_error(error) + "\n",
                            64 if while_parsing else 1))
    assert len(results) == len(templates)
    return results


# --- Comparing -----------------------------------------------------------------------------------


def differences(docker, templates):
    """What both make of the templates, where it differs. Those that fail are run one by one, the
    others many in one call."""
    templates = [one for one in templates if not re.search(DEVIATIONS, one)]
    ours = dict(zip(templates, evaluate(templates)))
    together = [one for one in templates
                if ours[one][2] == 0 and not re.search(r"define|block|Extra|Hostname", one)]
    batches = [together[i:i + BATCH] for i in range(0, len(together), BATCH)]

    def run_batch(batch):
        text = SEPARATOR.join("{{if true}}" + one + "{{end}}" for one in batch)
        output, _, code = docker.inspect(text)
        parts = output[:-1].split(SEPARATOR)
        if code != 0 or len(parts) != len(batch):
            return {one: docker.inspect(one) for one in batch}
        return {one: (part + "\n", "", 0) for one, part in zip(batch, parts)}

    theirs = {}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(run_batch, batches):
            theirs.update(result)
        alone = [one for one in templates if one not in theirs]
        theirs.update(zip(alone, pool.map(docker.inspect, alone)))
    return [f"{one!r}:\n  docker: {theirs[one]}\n  davit:  {ours[one]}"
            for one in templates
            if theirs[one] != ours[one] and not POINTER.search(theirs[one][0] + theirs[one][1])]


def test_known_templates(docker):
    """Of those that fail, each of which takes a run of Docker, an old one gets every third."""
    new = docker.version >= NEW_VERSION
    cases = [(one + [None, False])[:4] for one in KNOWN["cases"]]
    templates = [template for i, (template, text, _, only_new) in enumerate(cases)
                 if new or (not only_new and (text is not None or i % 3 == 0))]
    found = differences(docker, templates)
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)


class Grammar:
    """Templates at random, of which about half are right. Those for an old Docker have nothing
    whose type in Go has changed since."""

    OLD_FIELDS = [".ID", ".RepoTags", ".Size", ".Os", ".Config.Env", ".Config.Labels", ".Author",
                  ".Config.Labels.a", ".Config.Labels.none", ".RootFS.Layers", ".Comment",
                  ".Metadata.LastTagTime", ".GraphDriver.Data", ".Variant", ".Config.ExposedPorts",
                  ".Nope", ".Id", ".Extra.list", ".Extra.float", ".Extra.nothing", ".Extra.true",
                  ".Extra.int"]
    FIELDS = [".ID", ".RepoTags", ".Size", ".Os", ".Config", ".Config.Env", ".Config.Labels",
              ".Config.Labels.a", ".Config.Labels.none", ".Config.Healthcheck", ".RootFS",
              ".RootFS.Layers", ".Metadata.LastTagTime", ".Config.Entrypoint", ".Author",
              ".Config.Healthcheck.Retries", ".Config.Healthcheck.Interval", ".GraphDriver.Data",
              ".Comment", ".Variant", ".Config.ExposedPorts", ".Nope", ".Id", ".Extra.list",
              ".Extra.float", ".Extra.nothing", ".Extra.true", ".Extra.int", ".Config.Hostname"]
    LITERALS = ["1", "0", "-3", "2.5", "1e3", "0x1f", "'x'", '"a"', '""', "`b\\n`", "true", "false",
                "nil", '"linux"', '"a=b"', '"\\t%d|"', "7"]
    FUNCTIONS = {"upper": 1, "lower": 1, "title": 1, "len": 1, "json": 1, "not": 1, "html": 1,
                 "js": 1, "urlquery": 1, "print": 2, "println": 2, "eq": 2, "ne": 2, "lt": 2,
                 "le": 2, "gt": 2, "ge": 2, "and": 2, "or": 2, "index": 2, "slice": 2, "join": 2,
                 "split": 2, "truncate": 2, "pad": 3, "printf": 2}
    VERBS = ["%v", "%s", "%d", "%q", "%x", "%5v", "%-8s|", "%t", "%c", "%.2f", "%T", "%05d", "%+d",
             "%e", "%g", "%U", "%#v", "%X", "%8.3f", "%%", "%.3s", "% d"]

    def __init__(self, seed, version):
        self.random = random.Random(seed)
        self.variables = []
        self.old = version < NEW_VERSION

    def operand(self, depth):
        choice = self.random.random()
        if choice < 0.45:
            return self.random.choice(self.OLD_FIELDS if self.old else self.FIELDS)
        if choice < 0.7:
            return self.random.choice(self.LITERALS)
        if choice < 0.75 and self.variables:
            return self.random.choice(self.variables)
        if choice < 0.8 and not self.old:
            return "."
        return f"({self.pipe(depth + 1)})" if depth < 3 else "$.Os"

    def command(self, depth, piped=False):
        if self.random.random() < 0.35 and not piped:
            return self.operand(depth)
        name = self.random.choice(list(self.FUNCTIONS))
        count = self.FUNCTIONS[name] - piped + (self.random.random() < 0.05)
        operands = [self.operand(depth) for _ in range(count)]
        if name == "printf" and operands:
            operands[0] = json.dumps(self.random.choice(self.VERBS) + self.random.choice(
                ["", " "] + self.VERBS))
        return " ".join([name, *operands])

    def pipe(self, depth=0):
        commands = [self.command(depth)]
        while self.random.random() < 0.25:
            commands.append(self.command(depth, piped=True))
        return " | ".join(commands)

    def body(self, depth):
        return "".join(self.action(depth + 1) for _ in range(self.random.randint(1, 2)))

    def action(self, depth=0):
        choice = self.random.random()
        if choice < 0.55 or depth > 2:
            return self.random.choice(["{{%s}}", "{{- %s}}", " {{%s -}} "]) % self.pipe()
        if choice < 0.6:
            return self.random.choice(["text", " \n ", "}}", "{"])
        if choice < 0.7:
            name = self.random.choice(["$a", "$b"])
            text = "{{%s := %s}}" % (name, self.pipe())
            self.variables.append(name)
            return text
        known = len(self.variables)
        word = self.random.choice(["if", "with", "with" if self.old else "range", "range"])
        declared = ""
        if word == "range" and self.random.random() < 0.4:
            declared = "$k, $v := "
            self.variables += ["$k", "$v"]
        # Go of an old Docker does not go through numbers.
        pipe = self.random.choice(self.OLD_FIELDS[1:2] + self.OLD_FIELDS[4:-1]) \
            if self.old and word == "range" else self.pipe()
        text = "{{%s %s%s}}%s" % (word, declared, pipe, self.body(depth))
        if self.random.random() < 0.4:
            text += "{{else}}" + self.body(depth)
        del self.variables[known:]
        return text + "{{end}}"

    def template(self):
        self.variables = []
        return "".join(self.action() for _ in range(self.random.randint(1, 2)))


def test_generated_templates(docker):
    grammar = Grammar(int(os.environ.get("DAVIT_TEST_SEED", SEED)), docker.version)
    templates = [grammar.template()
                 for _ in range(int(os.environ.get("DAVIT_TEST_TEMPLATES", GENERATED)))]
    found = differences(docker, list(dict.fromkeys(templates)))
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)


# --- Lists ---------------------------------------------------------------------------------------

FORMATS = [
    "", "table", "json", "raw", "pretty", "{{.ID}}", " {{.ID}} ", "{{json .}}",
    "{{.Repository}}:{{.Tag}}", "table {{.ID}}\\t{{.Size}}", "table {{.ID}}\t{{.Size}}",
    "table{{.ID}}", "tables {{.ID}}",
    "table {{.ID}}\\t{{.Repository}}\\t{{.Tag}}\\t{{.Size}}\\t{{.CreatedAt}}\\t{{.CreatedSince}}",
    "{{.ID}}\\t{{.Tag}}", "{{.ID}}\\n{{.Tag}}", "{{.ID}}\n", "{{.Foo}}", "table {{.Foo}}",
    "table {{.ID}}\\t{{.Foo}}", "{{foo}}", "table {{foo}}", "{{.ID", "table {{.ID}", "{{.ID 1}}",
    "{{.ID.X}}", "{{.Tag | upper | printf \"%-10s|\"}}", "table {{upper .Repository}}\\t{{json .}}",
    "table {{join (split .Repository \"b\") \"-\"}}\\t{{lower .ID}}\\t{{title .Tag}}",
    "table {{len .ID}}\\t{{.Size}}", "table {{.ID | printf \"%.4s\"}} {{truncate .Repository 3}}",
    "table {{pad .Tag 2 2}}|", "table {{.ID}}\\n{{.Tag}}\\tx",
    "table {{if eq .Tag \"1\"}}x\\ty{{end}}",
    "{{if ne .Repository \"<none>\"}}{{.Repository}}{{else}}{{.ID}}{{end}}",
    "{{range .ID}}x{{end}}", "table {{range .ID}}x{{end}}", "{{printf \"%T\" .}}",
    "{{printf \"%T %q\" .ID .ID}}", "{{len .}}", "table {{index . \"ID\"}}",
    "table {{slice .ID 0 3}}\\t{{.Tag}}", "{{.Digest}}", "table {{.Digest}}",
    "{{.VirtualSize}} {{.SharedSize}} {{.UniqueSize}}", "table {{.ID}} {{with .Tag}}{{.}}{{end}}",
    "table {{html .Digest}}\\t{{.ID}}", "{{eq .Size 1}}", "table {{.ID}}\\t{{.Tag}}\\t",
    "table\\t{{.ID}}",
]


def test_formats_of_lists(docker, fake, cli):
    def images(request, context):
        return fake.images.ListImagesResponse(images=[
            fake.images.Image(id=one["Id"], repo_tags=one["RepoTags"],
                              repo_digests=one["RepoDigests"], size_bytes=one["Size"],
                              created_unix_ns=one["Created"] * 10**9) for one in IMAGES])

    fake.list = images
    found = []
    for text in FORMATS:
        if text == "json" and docker.version < NEW_VERSION:
            continue  # is no word yet
        ours = cli("images", "--format", text, check=False, environment={"TZ": "UTC"})
        theirs = docker.run("images", "--format", text)
        if theirs != (ours.stdout, same_error(ours.stderr), ours.code):
            found.append(f"{text!r}:\n  docker: {theirs}\n  davit:  "
                         f"{(ours.stdout, ours.stderr, ours.code)}")
    assert not found, "\n".join(found)


SEARCH_FORMATS = [
    "table", "table {{.Description}}\\t{{.Name}}\\t{{.StarCount}}",
    "table {{.Name}}\\t{{upper .Description}}\\t{{.IsOfficial}}", "{{.Name}}: {{.Description}}",
    "table {{printf \"%-20s|\" .Description}}{{.Name}}", "{{json .Description}}", "{{.Name.Foo}}",
]


def test_wide_characters(docker, fake, cli):
    fake.search = lambda request, context: fake.registries.SearchResponse(results=[
        fake.registries.SearchResult(name=one["name"], description=one["description"],
                                     stars=one["star_count"], is_official=one["is_official"])
        for one in RESULTS])
    found = []
    for text in SEARCH_FORMATS:
        ours = cli("search", "--format", text, "x", check=False)
        theirs = docker.run("search", "--format", text, "x")
        if text.startswith("table") and docker.version < NEW_VERSION:
            continue  # it took all characters to be as wide, and had one more column
        if theirs != (ours.stdout, ours.stderr, ours.code):
            found.append(f"{text!r}:\n  docker: {theirs}\n  davit:  "
                         f"{(ours.stdout, ours.stderr, ours.code)}")
    assert not found, "\n".join(found)
