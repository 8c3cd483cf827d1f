/* Shared between load.c, load_members.c and load_plan.c only. */
#pragma once

#include "daemon/image/layer_intake.h"
#include "daemon/image/load.h"
#include "daemon/registry/manifest.h"
#include "proto/base/json.h"
#include "proto/base/map.h"

/* --- load_members.c: what is in the archive; no I/O --------------------------------------------
 */

/* What an archive may make us keep in memory. */
#define DOCUMENT_MAX_BYTES MANIFEST_MAX_BYTES
#define MEMBERS_MAX_BYTES LOAD_MAX_BYTES /* documents and names together */
#define MEMBERS_MAX_LAYERS LOAD_MAX_LAYERS
#define MEMBER_HEAD_BYTES 512 /* tell what a file is */

enum member_kind { MEMBER_DOCUMENT, MEMBER_LAYER, MEMBER_LINK, MEMBER_OTHER };

struct member {
    char *path;
    enum member_kind kind;
    uint64_t size_bytes;
    char *target; /* of a link: the path of another */
    char *data;   /* of a document: size_bytes of them, and a NUL */
    enum layer_format format;
    struct digest named;  /* what its name says that its digest is; unset: nothing */
    struct digest hint;   /* what the diff_id may be by its name */
    struct digest digest; /* of its bytes; of a document when it is looked at first */
    struct layer_info layer;
    bool present; /* the layer was there before */
    uint64_t done_bytes;
    struct error failure; /* why nothing can be made of it */
};

struct members {
    struct map *by_path;
    struct member **layers; /* in the archive's order */
    size_t layer_count;
    size_t bytes;
};
void members_init(struct members *members);
void members_done(struct members *members);

/* How large a document may be: manifest.json larger than others. */
uint64_t document_max_bytes(const char *path);

/* What a file is, by its name and its first bytes: as many as there are, up to MEMBER_HEAD_BYTES.
 */
enum member_kind member_kind_of(const char *path, uint64_t size_bytes, const void *head,
                                size_t head_size);

/* Adds a member, which is then the table's. A name twice is an error, unless both times it is the
 * same link. */
bool members_add(struct members *members, struct member *member, struct error *err);
struct member *member_new(const char *path, enum member_kind kind, uint64_t size_bytes);

/* The file of a name, through links. NULL with INVALID_ARCHIVE: missing, or links without end. */
struct member *members_find(const struct members *members, const char *path, struct error *err);

/* --- load_plan.c: what the documents say; no I/O -----------------------------------------------
 */

struct planned_image {
    struct digest id;
    const struct member *config_member;
    struct image_config *config;
    char **names; /* canonical tags; or NULL */
    size_t name_count;
    struct digest parent;   /* among the others; or unset */
    struct member **layers; /* as many as the config has diff_ids */
    /* The manifest that came with it; NULL: one is to be made. The plan's. */
    const struct member *manifest_member;
    const struct manifest *manifest;
    struct {
        size_t count;
        struct digest all, all_but_last; /* unset: not looked at yet */
    } history;                           /* of the configuration */
};

struct load_plan {
    struct planned_image *images;
    size_t count;
    struct map *manifests; /* by digest: each is parsed once, however many lines name it */
};
void load_plan_done(struct load_plan *plan);

/* Every layer that an image of the plan has is one whose bytes are what its config says. */
bool load_plan_make(struct load_plan *plan, const struct members *members,
                    const struct platform *platform, struct error *err);

/* Whether all its images run on a platform: NOT_FOUND (PLATFORM_MISMATCH) otherwise. */
bool load_plan_check(const struct load_plan *plan, const struct platform *platform,
                     struct error *err);
