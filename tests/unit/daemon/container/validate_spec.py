#!/usr/bin/python3
"""Validates an OCI runtime config on stdin: validate_spec.py SCHEMA_DIR. Exit status 0: valid; 1: not,
with the reasons; 77: the jsonschema module is not installed."""

import json
import pathlib
import sys

try:
    import jsonschema
except ImportError:
    sys.exit(77)


def main():
    folder = pathlib.Path(sys.argv[1])
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    store = {(folder / name).as_uri(): schema for name, schema in schemas.items()}
    root = schemas["config-schema.json"]
    resolver = jsonschema.RefResolver((folder / "config-schema.json").as_uri(), root, store)
    validator = jsonschema.Draft4Validator(root, resolver=resolver)
    errors = list(validator.iter_errors(json.load(sys.stdin)))
    for error in errors:
        print("/".join(map(str, error.absolute_path)), error.message)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
