#!/usr/bin/python3
"""The cold pull alone: `layers.py --parts pull`, with its other options."""

import sys

import layers

if __name__ == "__main__":
    sys.exit(layers.main(["--parts", "pull", *sys.argv[1:]]))
