#include "client/inspect_types.h"

#define END          \
    {                \
        .name = NULL \
    }
#define FIELD(field, of)                              \
    {                                                 \
        .name = (field), .key = (field), .type = (of) \
    }
#define FIELD_IF_ANY(field, of)                                           \
    {                                                                     \
        .name = (field), .key = (field), .type = (of), .omit_empty = true \
    }
#define EMBEDDED(field, of)           \
    {                                 \
        .name = (field), .type = (of) \
    }
#define STRUCT(go_name, all)                                    \
    {                                                           \
        .kind = TYPE_STRUCT, .name = (go_name), .fields = (all) \
    }
#define POINTER(go_name, to)                                       \
    {                                                              \
        .kind = TYPE_POINTER, .name = "*" go_name, .element = (to) \
    }

/* --- Configs of images -------------------------------------------------------------------------
 */

static const struct template_field health_fields[] = {
    FIELD_IF_ANY("Test", &template_strings),
    FIELD_IF_ANY("Interval", &template_duration),
    FIELD_IF_ANY("Timeout", &template_duration),
    FIELD_IF_ANY("StartPeriod", &template_duration),
    FIELD_IF_ANY("StartInterval", &template_duration),
    FIELD_IF_ANY("Retries", &template_int),
    END,
};
static const struct template_type health = STRUCT("v1.HealthcheckConfig", health_fields);
static const struct template_type health_pointer = POINTER("v1.HealthcheckConfig", &health);

static const struct template_field oci_config_fields[] = {
    FIELD_IF_ANY("User", &template_string),
    FIELD_IF_ANY("ExposedPorts", &template_set),
    FIELD_IF_ANY("Env", &template_strings),
    FIELD_IF_ANY("Entrypoint", &template_strings),
    FIELD_IF_ANY("Cmd", &template_strings),
    FIELD_IF_ANY("Volumes", &template_set),
    FIELD_IF_ANY("WorkingDir", &template_string),
    FIELD_IF_ANY("Labels", &template_string_map),
    FIELD_IF_ANY("StopSignal", &template_string),
    FIELD_IF_ANY("ArgsEscaped", &template_bool),
    END,
};
static const struct template_type oci_config = STRUCT("v1.ImageConfig", oci_config_fields);

static const struct template_field docker_config_fields[] = {
    FIELD_IF_ANY("Healthcheck", &health_pointer),
    FIELD_IF_ANY("OnBuild", &template_strings),
    FIELD_IF_ANY("Shell", &template_strings),
    END,
};
static const struct template_type docker_config =
    STRUCT("v1.DockerOCIImageConfigExt", docker_config_fields);

static const struct template_field config_fields[] = {
    EMBEDDED("ImageConfig", &oci_config),
    EMBEDDED("DockerOCIImageConfigExt", &docker_config),
    END,
};
static const struct template_type config = STRUCT("v1.DockerOCIImageConfig", config_fields);
static const struct template_type config_pointer = POINTER("v1.DockerOCIImageConfig", &config);

/* --- Images ------------------------------------------------------------------------------------
 */

static const struct template_field driver_fields[] = {
    FIELD("Data", &template_string_map),
    FIELD("Name", &template_string),
    END,
};
static const struct template_type driver = STRUCT("storage.DriverData", driver_fields);

static const struct template_field root_fields[] = {
    FIELD("Type", &template_string),
    FIELD_IF_ANY("Layers", &template_strings),
    END,
};
static const struct template_type root = STRUCT("image.RootFS", root_fields);

static const struct template_field metadata_fields[] = {
    FIELD("LastTagTime", &template_time),
    END,
};
static const struct template_type metadata = STRUCT("image.Metadata", metadata_fields);

static const struct template_field platform_fields[] = {
    {"Architecture", "architecture", &template_string, false},
    {"OS", "os", &template_string, false},
    {"OSVersion", "os.version", &template_string, true},
    {"OSFeatures", "os.features", &template_strings, true},
    {"Variant", "variant", &template_string, true},
    END,
};
static const struct template_type platform = STRUCT("v1.Platform", platform_fields);
static const struct template_type platform_pointer = POINTER("v1.Platform", &platform);

static const struct template_field descriptor_fields[] = {
    {"MediaType", "mediaType", &template_string, false},
    {"Digest", "digest", &template_string, false},
    {"Size", "size", &template_int64, false},
    {"URLs", "urls", &template_strings, true},
    {"Annotations", "annotations", &template_string_map, true},
    {"Data", "data", &template_string, true},
    {"Platform", "platform", &platform_pointer, true},
    {"ArtifactType", "artifactType", &template_string, true},
    END,
};
static const struct template_type descriptor = STRUCT("v1.Descriptor", descriptor_fields);
static const struct template_type descriptor_pointer = POINTER("v1.Descriptor", &descriptor);

static const struct template_type manifests = {.kind = TYPE_SLICE,
                                               .name = "[]image.ManifestSummary",
                                               .element = &template_any};

static const struct template_field image_fields[] = {
    {"ID", "Id", &template_string, false},
    FIELD("RepoTags", &template_strings),
    FIELD("RepoDigests", &template_strings),
    FIELD("Parent", &template_string),
    FIELD("Comment", &template_string),
    FIELD_IF_ANY("Created", &template_string),
    FIELD_IF_ANY("Container", &template_string),
    FIELD_IF_ANY("ContainerConfig", &config_pointer),
    FIELD("DockerVersion", &template_string),
    FIELD("Author", &template_string),
    FIELD("Config", &config_pointer),
    FIELD("Architecture", &template_string),
    FIELD_IF_ANY("Variant", &template_string),
    FIELD("Os", &template_string),
    FIELD_IF_ANY("OsVersion", &template_string),
    FIELD("Size", &template_int64),
    FIELD_IF_ANY("VirtualSize", &template_int64),
    FIELD("GraphDriver", &driver),
    FIELD("RootFS", &root),
    FIELD("Metadata", &metadata),
    FIELD_IF_ANY("Descriptor", &descriptor_pointer),
    FIELD_IF_ANY("Manifests", &manifests),
    END,
};
const struct template_type image_inspect_type = STRUCT("image.InspectResponse", image_fields);
