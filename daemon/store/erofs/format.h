/* EROFS on disk: what we write of it (Linux, Documentation/filesystems/erofs.rst and
 * fs/erofs/erofs_fs.h). Everything is little-endian. Images need Linux 6.12, which mounts them from
 * files; nothing newer is used. */
#pragma once

#include <stdint.h>

#define EROFS_MAGIC 0xE0F5E1E2U
#define EROFS_SUPER_OFFSET 1024
#define EROFS_BLOCK_BITS 9
#define EROFS_BLOCK 512U
#define EROFS_SLOT 32U /* inodes begin at multiples; their number is that of the slot */

#define EROFS_COMPAT_CHECKSUM 0x1U
#define EROFS_INCOMPAT_CHUNKED 0x4U
#define EROFS_INCOMPAT_DEVICES 0x8U

#define EROFS_DEVICES_OFFSET (EROFS_SUPER_OFFSET + 128)

struct erofs_super {
    uint32_t magic;
    uint32_t checksum; /* CRC-32C of the rest of the block, this being 0 */
    uint32_t feature_compat;
    uint8_t block_bits;
    uint8_t extension_slots;
    uint16_t root_nid;
    uint64_t inodes;
    uint64_t build_seconds; /* the time of all compact inodes */
    uint32_t build_nanoseconds;
    uint32_t blocks;
    uint32_t meta_block;
    uint32_t xattr_block; /* shared xattrs are numbered from here, by multiples of 4 bytes */
    uint8_t uuid[16];
    uint8_t volume_name[16];
    uint32_t feature_incompat;
    uint16_t compression;
    uint16_t extra_devices;
    uint16_t device_slot; /* the table's offset, in multiples of its entries */
    uint8_t dir_block_bits;
    uint8_t xattr_prefixes;
    uint32_t xattr_prefix_start;
    uint64_t packed_nid;
    uint8_t reserved[24];
};

struct erofs_device {
    uint8_t tag[64];
    uint32_t blocks;
    uint32_t mapped_block;
    uint8_t reserved[56];
};

enum erofs_layout { EROFS_FLAT = 0, EROFS_INLINE = 2, EROFS_CHUNKED = 4 };

/* Bit 0: extended; from bit 1 on the layout. */
#define EROFS_FORMAT(layout, extended) ((uint16_t)((layout) << 1 | (extended)))

/* Of a chunked inode, beside the number of bits that a chunk has more than a block. */
#define EROFS_CHUNK_INDEXES 0x20U
#define EROFS_CHUNK_MAX ((uint64_t)EROFS_BLOCK << 31)

struct erofs_inode_compact {
    uint16_t format;
    uint16_t xattr_count; /* 0, or 1 + multiples of 4 bytes after the header */
    uint16_t mode;
    uint16_t links;
    uint32_t size;
    uint32_t reserved;
    uint32_t content; /* first block, device number or format of chunks */
    uint32_t number;
    uint16_t uid;
    uint16_t gid;
    uint32_t reserved2;
};

struct erofs_inode_extended {
    uint16_t format;
    uint16_t xattr_count;
    uint16_t mode;
    uint16_t reserved;
    uint64_t size;
    uint32_t content;
    uint32_t number;
    uint32_t uid;
    uint32_t gid;
    uint64_t seconds;
    uint32_t nanoseconds;
    uint32_t links;
    uint8_t reserved2[16];
};

struct erofs_chunk {
    uint16_t advise;
    uint16_t device; /* from 1 on; 0 is the image itself */
    uint32_t block;
};

struct erofs_dirent {
    uint64_t nid;
    uint16_t name_offset;
    uint8_t type;
    uint8_t reserved;
} __attribute__((packed));

struct erofs_xattr_header {
    uint32_t name_filter;
    uint8_t shared_count;
    uint8_t reserved[7];
};

enum erofs_xattr_prefix { EROFS_XATTR_USER = 1, EROFS_XATTR_TRUSTED = 4, EROFS_XATTR_SECURITY = 6 };

struct erofs_xattr_entry {
    uint8_t name_length; /* without the prefix */
    uint8_t prefix;
    uint16_t value_size;
};

_Static_assert(sizeof(struct erofs_super) == 128, "as on disk");
_Static_assert(sizeof(struct erofs_device) == 128, "as on disk");
_Static_assert(sizeof(struct erofs_inode_compact) == 32, "as on disk");
_Static_assert(sizeof(struct erofs_inode_extended) == 64, "as on disk");
_Static_assert(sizeof(struct erofs_chunk) == 8, "as on disk");
_Static_assert(sizeof(struct erofs_dirent) == 12, "as on disk");
_Static_assert(sizeof(struct erofs_xattr_header) == 12, "as on disk");
_Static_assert(sizeof(struct erofs_xattr_entry) == 4, "as on disk");
