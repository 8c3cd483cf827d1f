#!/usr/bin/python3
"""Checks that includes go one way between the folders, as the architecture draws the arrows, and
that every folder has a README.md. Run by ctest and tests/run.sh.

  check_includes.py [ROOT]        the check; exit status 1 and a line per violation
  check_includes.py --self-test   plants violations in a scratch tree: each must be found
"""

import pathlib
import re
import sys
import tempfile

# Folder, or a file that is an arrow of its own: what its files may include besides its own. Generated messages are "proto/davit/v1".
PROTO = ("proto/base", "proto/async")
STORAGE = ("daemon/store", "daemon/registry")
ARROWS = {
    "proto/base": (),
    "proto/async": ("proto/base",),
    "proto/davit/v1": (),
    "proto/grpc": (*PROTO, "proto/davit/v1"),
    "daemon/store": PROTO,
    "daemon/registry": PROTO,
    "daemon/transfer": (*PROTO, *STORAGE),
    "daemon/build": ("proto/base",),
    "daemon/image": (*PROTO, *STORAGE, "daemon/transfer", "daemon/build"),
    "daemon/container": (*PROTO, *STORAGE),
    "daemon/job": (*PROTO, "daemon/store"),
    "daemon/system": (*PROTO, *STORAGE, "daemon/image", "daemon/container"),
    "daemon/server": (*PROTO, "proto/davit/v1", "proto/grpc", *STORAGE, "daemon/image",
                      "daemon/container", "daemon/job", "daemon/system", "daemon/config.h"),
    "daemon/config.h": ("proto/base",),
    "daemon": (*PROTO, *STORAGE, "daemon/transfer", "daemon/image", "daemon/container",
               "daemon/system", "daemon/server", "daemon/config.h"),
    "client/ui": ("proto/base", "proto/davit/v1"),
    "client": (*PROTO, "proto/davit/v1", "proto/grpc", "client/ui"),
}
# System headers that only these folders may include: the engine knows neither gRPC nor HTTP. The
# server may, for it also tells the versions of what it runs on.
HEADERS = (
    (re.compile(r"nghttp2/"), ("proto/grpc", "daemon/server")),
    (re.compile(r"llhttp"), ("daemon/server",)),
    (re.compile(r"curl/"), ("daemon/registry", "daemon/server")),
    (re.compile(r"protobuf-c/"), ("proto/grpc", "proto/davit/v1", "daemon/server", "client")),
    (re.compile(r"sqlite3"), ("daemon/store", "daemon/server")),
    (re.compile(r"archive(_entry)?\.h"), ("daemon/store",)),
    (re.compile(r"ucontext\.h"), ("proto/async",)),
)
SOURCES = {".c", ".h"}
NEEDS_README = {".c", ".h", ".py", ".sh", ".cmake", ".service", ".socket"}
TOP_FOLDERS = ("proto", "daemon", "client", "third_party", "systemd", "tests")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def folder_of(path):
    """The entry of ARROWS that a path lies in: the longest that fits, or None."""
    folder = pathlib.PurePosixPath(path)
    while str(folder) != ".":
        if str(folder) in ARROWS:
            return str(folder)
        folder = folder.parent
    return None


def check_file(root, path):
    relative = path.relative_to(root)
    # A test lives by the rules of what it tests.
    test = relative.parts[:2] == ("tests", "unit")
    home = folder_of(pathlib.PurePosixPath(*relative.parts[2:]) if test else relative)
    if home is None:
        return
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        name = match.group(1) or match.group(2)
        place = f"{relative}:{number}"
        target = folder_of(name)
        if match.group(2):
            for pattern, users in HEADERS:
                if pattern.match(name) and home not in users:
                    yield f"{place}: {home} may not include <{name}>; only {', '.join(users)}"
        elif test and (path.parent / name).exists():
            continue
        elif target is None and not name.startswith("tests/"):
            yield f'{place}: "{name}" is not named from the top of the tree'
        if target and target != home and target not in ARROWS[home]:
            yield f"{place}: {home} may not include {target}"


def named_above(root, folder):
    """Has a folder above, within the same top folder, a README that speaks for this one?"""
    for above in folder.parents:
        if above == root:
            return False
        readme = above / "README.md"
        if readme.exists() and f"{folder.relative_to(above)}/" in readme.read_text():
            return True
    return False


def check_readmes(root):
    folders = set()
    for top in TOP_FOLDERS:
        for path in (root / top).rglob("*"):
            parts = path.relative_to(root).parts
            if parts[:2] == ("tests", "unit"):
                folders.add(root / "tests" / "unit")
            elif path.suffix in NEEDS_README and "corpus" not in parts:
                folders.add(path.parent)
    for folder in sorted(folders):
        if not (folder / "README.md").exists() and not named_above(root, folder):
            yield (f"{folder.relative_to(root)}: has no README.md (who may use it, what it may "
                   "use), and none above it names it")


def check(root):
    problems = []
    for top in TOP_FOLDERS:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCES:
                problems += check_file(root, path)
    return problems + list(check_readmes(root))


def check_table():
    """The table itself must have no way round."""
    def visit(folder, trail):
        assert folder not in trail, " -> ".join((*trail, folder))
        for target in ARROWS[folder]:
            visit(target, (*trail, folder))
    for folder in ARROWS:
        visit(folder, ())


def self_test():
    check_table()
    clean = {
        "proto/base/a.h": "", "proto/async/b.h": '#include "proto/base/a.h"\n',
        "daemon/store/s.h": '#include "proto/async/b.h"\n#include <sqlite3.h>\n',
        "client/main.c": '#include "proto/async/b.h"\n#include "proto/davit/v1/x.pb-c.h"\n',
        "tests/unit/daemon/store/t.c": '#include "daemon/store/s.h"\n#include <cmocka.h>\n',
        **{f"{folder}/README.md": "x" for folder in
           ("proto/base", "proto/async", "daemon/store", "daemon/image", "client", "tests/unit")},
    }
    planted = {
        "proto/base/x.h": '#include "proto/async/b.h"\n',
        "proto/async/x.h": '#include "daemon/store/s.h"\n',
        "client/x.c": '#include "daemon/store/s.h"\n',
        "daemon/store/x.c": '#include "proto/davit/v1/x.pb-c.h"\n',
        "daemon/store/y.c": "#  include <nghttp2/nghttp2.h>\n",
        "daemon/image/x.c": "#include <llhttp.h>\n",
        "tests/unit/daemon/store/x.c": '#include "client/main.h"\n',
        "daemon/store/z.c": '#include "s.h"\n',
        "proto/grpc/x.c": "",
    }
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)

        def write(files):
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)

        write(clean)
        found = check(root)
        assert found == [], found
        for path, text in planted.items():
            write({path: text})
            found = check(root)
            assert found, f"not found: {path}: {text}"
            (root / path).unlink()
    print(f"check_includes.py: each of {len(planted)} planted violations was found")


def main(arguments):
    if arguments == ["--self-test"]:
        self_test()
        return 0
    root = pathlib.Path(arguments[0] if arguments else __file__).resolve()
    problems = check(root if arguments else root.parents[1])
    print("\n".join(problems) if problems else "check_includes.py: all arrows go one way")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
