"""Tar archives byte by byte, also such as no program would write.

Nouns: a *header* is one block of 512 bytes; an *entry* is a header with its content; an *archive*
is entries, and the two blocks of zeros that end it. Everything is bytes; text is taken, too.

    archive(directory("d"), file("d/f", b"content"), pax({"path": "x" * 300}), file("ignored"))

Any field of a header may be given as it is to stand there: header("f", mode=b"0000xyz\0").
"""

BLOCK = 512
END = bytes(2 * BLOCK)
MTIME = 1600000000  # as in images.py

USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)

FILE, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % kind for kind in range(7))


def to_bytes(text):
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def pad(data):
    return data + bytes(-len(data) % BLOCK)


def base256(value, width):
    """How GNU writes numbers for which a field has not digits enough; also negative ones."""
    data = value.to_bytes(width, "big", signed=True)
    return bytes([data[0] | 0x80]) + data[1:]


def number(value, width):
    if isinstance(value, bytes):
        return value
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return base256(value, width)


def header(name, kind=FILE, size=0, *, mode=0o644, uid=0, gid=0, mtime=MTIME, link=b"",
           magic=USTAR, user=b"", group=b"", device=(0, 0), prefix=b"", rest=b"", checksum=None):
    """`rest` is what stands where `prefix` would. Fields that are too long are cut."""
    block = bytearray(BLOCK)

    def put(offset, width, data):
        data = to_bytes(data)[:width]
        block[offset:offset + len(data)] = data

    put(0, 100, name)
    put(100, 8, number(mode, 8))
    put(108, 8, number(uid, 8))
    put(116, 8, number(gid, 8))
    put(124, 12, number(size, 12))
    put(136, 12, number(mtime, 12))
    put(156, 1, kind)
    put(157, 100, link)
    put(257, 8, magic)
    put(265, 32, user)
    put(297, 32, group)
    if magic != V7:
        put(329, 8, number(device[0], 8))
        put(337, 8, number(device[1], 8))
    put(345, 167, rest or prefix)
    put(148, 8, b" " * 8)
    put(148, 8, b"%06o\0 " % sum(block) if checksum is None else checksum)
    return bytes(block)


# --- Entries -------------------------------------------------------------------------------------


def file(name, data=b"", kind=FILE, **fields):
    data = to_bytes(data)
    return header(name, kind, fields.pop("size", len(data)), **fields) + pad(data)


def directory(name, mode=0o755, **fields):
    return header(name, DIRECTORY, mode=mode, **fields)


def symlink(name, target, mode=0o777, **fields):
    return header(name, SYMLINK, link=target, mode=mode, **fields)


def hardlink(name, target, **fields):
    return header(name, HARDLINK, link=target, **fields)


def fifo(name, **fields):
    return header(name, FIFO, **fields)


def char(name, major=1, minor=3, **fields):
    return header(name, CHAR, device=(major, minor), **fields)


def block(name, major=8, minor=0, **fields):
    return header(name, BLOCK_DEVICE, device=(major, minor), **fields)


def archive(*entries):
    return b"".join(entries) + END


# --- What stands before an entry and adds to it --------------------------------------------------


def pax_record(key, value, length=None):
    """`length` may be a lie."""
    key, value = to_bytes(key), to_bytes(value)
    size = len(key) + len(value) + 3
    while length is None and len(b"%d" % size) + len(key) + len(value) + 3 != size:
        size = len(b"%d" % size) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (size if length is None else length, key, value)


def pax(records, kind=b"x", name="./PaxHeaders/x", **fields):
    """A PAX header of a dict, of (key, value) pairs, or of bytes as they are."""
    if not isinstance(records, bytes):
        pairs = records.items() if isinstance(records, dict) else records
        records = b"".join(pax_record(key, value) for key, value in pairs)
    return file(name, records, kind, **fields)


def pax_global(records):
    return pax(records, b"g", "pax_global_header")


def xattrs(values):
    return pax({b"SCHILY.xattr." + to_bytes(key): value for key, value in values.items()})


def gnu_long(text, kind=b"L", **fields):
    """The name (L) or link (K) of the next entry."""
    return file("././@LongLink", to_bytes(text) + b"\0", kind, magic=GNU, mode=0, mtime=0, **fields)


# --- Sparse files in their four forms ------------------------------------------------------------
#
# A map is (offset, size) pairs; `size` that of the file, holes included; `data` what stands in the
# archive.


def sparse_old_gnu(name, size, sparse_map, data=b"", **fields):
    """Four pairs in the header, 21 in each block behind it."""
    def pairs(some):
        return b"".join(number(offset, 12) + number(length, 12) for offset, length in some)

    sparse_map, more = sparse_map[:4], sparse_map[4:]
    rest = bytes(41) + pairs(sparse_map).ljust(96, b"\0") + bytes([bool(more)]) + number(size, 12)
    blocks = []
    while more:
        sparse_map, more = more[:21], more[21:]
        blocks.append(pad(pairs(sparse_map).ljust(504, b"\0") + bytes([bool(more)])))
    stored = fields.pop("stored", len(data))
    return header(name, b"S", stored, magic=GNU, rest=rest, **fields) + b"".join(blocks) + pad(data)


def sparse_pax_00(name, size, sparse_map, data=b"", **fields):
    records = [("GNU.sparse.size", b"%d" % size), ("GNU.sparse.numblocks", b"%d" % len(sparse_map))]
    for offset, length in sparse_map:
        records += [("GNU.sparse.offset", b"%d" % offset), ("GNU.sparse.numbytes", b"%d" % length)]
    return pax(records) + file(name, data, **fields)


def sparse_pax_01(name, size, sparse_map, data=b"", **fields):
    flat = b",".join(b"%d,%d" % pair for pair in sparse_map)
    return pax([("GNU.sparse.size", b"%d" % size),
                ("GNU.sparse.numblocks", b"%d" % len(sparse_map)),
                ("GNU.sparse.map", flat), ("GNU.sparse.name", name)]) + \
        file("./GNUSparseFile.0/f", data, **fields)


def sparse_pax_10(name, size, sparse_map, data=b"", **fields):
    text = b"%d\n" % len(sparse_map) + b"".join(b"%d\n%d\n" % pair for pair in sparse_map)
    return pax([("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", name),
                ("GNU.sparse.realsize", b"%d" % size)]) + \
        file("./GNUSparseFile.0/f", pad(text) + data, **fields)


SPARSE_FORMS = {"old-gnu": sparse_old_gnu, "pax-0.0": sparse_pax_00, "pax-0.1": sparse_pax_01,
                "pax-1.0": sparse_pax_10}
