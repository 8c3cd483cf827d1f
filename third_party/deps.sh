#!/bin/sh
# Installs what davit needs from the distribution's packages (Debian 12 and 13, Ubuntu 24.04).
# What is there already, from wherever, is left alone; when nothing is missing, this is a quick
# no-op that needs neither root nor a network. On other systems it names what is missing.
set -eu

usage()
{
    cat <<USAGE
usage: deps.sh [--check] GROUP...

Installs the packages of the groups named:
  build   compiler, CMake and libraries
  run     an OCI runtime, and what the quick start serves its image with
  test    what the tests need beyond that; dockerd, podman and skopeo to compare with are among it
  bench   what benchmarks need beyond that

  --check  only say what is missing; exit status 1 if anything is
USAGE
}

# group  probe  package[|alternative...]
# A probe is tool:PROGRAM, pc:MODULE of pkg-config, file:PATH or python:MODULE; several separated
# by a comma are alternatives. The first package that the distribution has is installed.
packages()
{
    cat <<TABLE
build tool:gcc                      build-essential
build tool:cmake                    cmake
build tool:ninja                    ninja-build
build tool:pkg-config               pkg-config
build tool:protoc                   protobuf-compiler
build tool:protoc-gen-c             protobuf-c-compiler
build pc:libuv                      libuv1-dev
build pc:libnghttp2                 libnghttp2-dev
build pc:libcurl                    libcurl4-openssl-dev
build pc:libcrypto                  libssl-dev
build pc:libarchive                 libarchive-dev
build pc:zlib                       zlib1g-dev
build pc:libzstd                    libzstd-dev
build pc:libisal                    libisal-dev
build pc:libprotobuf-c              libprotobuf-c-dev
build pc:jansson                    libjansson-dev
build pc:sqlite3                    libsqlite3-dev
build pc:libsystemd                 libsystemd-dev
build pc:cmocka                     libcmocka-dev
build pc:libllhttp,file:/usr/share/llhttp/llhttp.c  libllhttp-dev|node-llhttp
run   tool:crun,tool:runc           runc|crun
run   tool:python3                  python3
run   tool:curl                     curl
run   tool:docker-registry          docker-registry
run   file:/bin/busybox,file:/usr/bin/busybox  busybox-static
run   file:/etc/ssl/certs/ca-certificates.crt  ca-certificates
test  python:pytest                 python3-pytest
test  python:grpc                   python3-grpcio
test  python:google.protobuf        python3-protobuf
test  python:jsonschema             python3-jsonschema
test  tool:zstd                     zstd
test  tool:bsdtar                   libarchive-tools
test  tool:openssl                  openssl
test  tool:perl                     perl-base
test  tool:clang                    clang
test  file:/usr/share/doc/libclang-rt-dev  libclang-rt-dev
test  tool:clang-tidy               clang-tidy
test  tool:clang-format             clang-format
test  tool:ccache                   ccache
test  tool:valgrind                 valgrind
test  tool:mandoc                   mandoc
test  tool:groff                    groff-base
test  tool:zsh                      zsh
test  tool:fish                     fish
test  tool:systemd-socket-activate  systemd
test  tool:dockerd                  docker.io
test  tool:docker                   docker-cli|docker.io
test  tool:podman                   podman
test  tool:skopeo                   skopeo
bench tool:debootstrap              debootstrap
bench tool:tc                       iproute2
bench tool:igzip                    isal
TABLE
}

# Services that a package would start, though davit wants only the program.
UNWANTED_SERVICES="docker-registry.service docker.service docker.socket containerd.service \
podman.socket podman.service podman-restart.service podman-auto-update.timer"

PATH=$PATH:/usr/sbin:/sbin

probe_one()
{
    case $1 in
    tool:*) command -v "${1#tool:}" >/dev/null ;;
    pc:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#pc:}" ;;
    file:*) [ -e "${1#file:}" ] ;;
    python:*) /usr/bin/python3 -c "import ${1#python:}" 2>/dev/null ;;
    esac
}

# Is one of the alternatives there, found by its probe or, failing that, by its package's name?
present()
{
    for probe in $(echo "$1" | tr ',' ' '); do
        if probe_one "$probe"; then
            return 0
        fi
    done
    command -v dpkg-query >/dev/null || return 1
    for package in $(echo "$2" | tr '|' ' '); do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        if [ "$status" = "install ok installed" ]; then
            return 0
        fi
    done
    return 1
}

# The first alternative that apt can install; nothing if there is none.
choose()
{
    for package in $(echo "$1" | tr '|' ' '); do
        if [ -n "$(apt-cache show --no-all-versions "$package" 2>/dev/null)" ]; then
            echo "$package"
            return
        fi
    done
}

# Sets $names to the packages to install; false if one of those missing is not in apt's lists.
choose_all()
{
    names=
    for alternatives in $missing; do
        chosen=$(choose "$alternatives")
        if [ -z "$chosen" ]; then
            unavailable=$alternatives
            return 1
        fi
        names="$names $chosen"
    done
}

apt_install()
{
    # --no-remove: a machine that has, say, Docker's own packages must not lose them to ours.
    apt-get install -y -q --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 $names
}

check_only=false
groups=
for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit 0
        ;;
    --check) check_only=true ;;
    build | run | test | bench) groups="$groups $argument" ;;
    *)
        echo "deps.sh: unknown group \"$argument\"" >&2
        usage >&2
        exit 2
        ;;
    esac
done
if [ -z "$groups" ]; then
    usage >&2
    exit 2
fi

missing=
report=
while read -r group probe alternatives; do
    case " $groups " in
    *" $group "*) ;;
    *) continue ;;
    esac
    if ! present "$probe" "$alternatives"; then
        missing="$missing $alternatives"
        report="$report
  $(echo "$probe" | sed 's/tool:/program /g; s/pc:/pkg-config module /g; s/file://g;
        s/python:/Python module /g; s/,/ or /g') (Debian: $(echo "$alternatives" | sed 's/|/ or /g'))"
    fi
done <<TABLE
$(packages)
TABLE

if [ -z "$missing" ]; then
    exit 0
fi
if $check_only; then
    echo "deps.sh: missing:$report" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "deps.sh: this system has no apt-get; install these by its own means:$report" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: missing:$report" >&2
    echo "deps.sh: installing them needs root: run it with sudo" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi

services_before=$(ls /lib/systemd/system 2>/dev/null || true)
# The lists may be absent, or too old for the packages they name to be there still.
if ! choose_all || ! apt_install; then
    apt-get update -q
    if ! choose_all; then
        echo "deps.sh: this distribution has no package $unavailable" >&2
        exit 1
    fi
    apt_install
fi
for service in $UNWANTED_SERVICES; do
    case "$services_before" in
    *"$service"*) ;;
    *)
        if [ -e "/lib/systemd/system/$service" ] && command -v systemctl >/dev/null; then
            systemctl disable -q "$service" 2>/dev/null || true
        fi
        ;;
    esac
done
