#!/bin/bash
# From a checkout on a machine with nothing installed to a command that runs in a container.
set -euo pipefail

usage()
{
    cat <<USAGE
usage: client/quickstart.sh [--keep] [IMAGE [COMMAND...]]

Installs what is needed from the distribution's packages, builds davit, starts davitd on a scratch
root, pulls IMAGE with live progress and runs COMMAND in it. Without IMAGE it needs no internet: it
makes a busybox image of several layers and serves it from a registry on loopback.

  --keep  leave the daemon (and the registry) running, and say how to use and stop them

Installing and running containers needs root.
USAGE
}

keep=false
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --keep) keep=true ;;
    --)
        shift
        break
        ;;
    -*)
        echo "quickstart.sh: unknown option $1" >&2
        usage >&2
        exit 2
        ;;
    *) break ;;
    esac
    shift
done
image=${1:-}
[ $# -eq 0 ] || shift
command=("$@")

if [ "$(id -u)" -ne 0 ]; then
    echo "quickstart.sh: needs root, to install packages and to run containers: sudo $0" >&2
    exit 1
fi

root=$(cd "$(dirname "$0")/.." && pwd)
build=${DAVIT_QUICKSTART_BUILD:-$root/build}
scratch=
davitd=
registry=
bold='' dim='' plain=''
if [ -t 1 ]; then
    bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
fi

say()
{
    printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"
}

# Shows a command as one would type it, then runs it.
show()
{
    local word line=
    for word in "$@"; do
        case $word in
        *[!a-zA-Z0-9_./:@=-]*) line="$line '${word//\'/\'\\\'\'}'" ;;
        *) line="$line $word" ;;
        esac
    done
    printf '%s$%s%s\n' "$dim" "$line" "$plain"
    "$@"
}

stop()
{
    local pid=$1
    [ -n "$pid" ] || return 0
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

clean()
{
    local status=$?

    trap - EXIT INT TERM HUP
    if [ -n "$scratch" ]; then
        stop "$davitd"
        stop "$registry"
        rm -rf --one-file-system "$scratch"
    fi
    exit $status
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Waits until the file has a line that matches; fails if the process ends first.
await_line()
{
    local pid=$1 pattern=$2 file=$3
    for _ in $(seq 600); do
        if grep -qE "$pattern" "$file" 2>/dev/null; then
            return 0
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    echo "quickstart.sh: it did not start:" >&2
    cat "$file" >&2
    return 1
}

# Output of long work goes to a file, which is shown only if the work fails.
quietly()
{
    if ! "$@" >"$scratch/work.log" 2>&1 </dev/null; then
        echo "quickstart.sh: failed: $*" >&2
        tail -n 40 "$scratch/work.log" >&2
        return 1
    fi
}

base=/var/tmp
[ -d $base ] || base=/tmp
scratch=$(mktemp -d "$base/davit-quickstart.XXXXXX")

say "Installing what is missing (third_party/deps.sh build run)"
quietly "$root/third_party/deps.sh" build run
say "Building davit in $build"
quietly cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo
quietly ninja -C "$build" davitd davit
ls -lh "$build/bin/davitd" "$build/bin/davit" | awk '{print "    " $NF ", " $5}'

say "Starting davitd with its data in $scratch"
# A session of its own, so that Ctrl-C reaches the command line first and us, not the daemon.
setsid "$build/bin/davitd" --data-root "$scratch/data" --exec-root "$scratch/exec" \
    -H "unix://$scratch/davit.sock" --pidfile "$scratch/davitd.pid" \
    >"$scratch/davitd.log" 2>&1 </dev/null &
davitd=$!
for _ in $(seq 600); do
    [ ! -S "$scratch/davit.sock" ] || break
    kill -0 $davitd 2>/dev/null || break
    sleep 0.05
done
if [ ! -S "$scratch/davit.sock" ]; then
    echo "quickstart.sh: davitd did not start:" >&2
    cat "$scratch/davitd.log" >&2
    exit 1
fi
export DAVIT_HOST=unix://$scratch/davit.sock
PATH=$build/bin:$PATH

if [ -z "$image" ]; then
    say "Making a busybox image and serving it from a registry on loopback"
    cat >"$scratch/registry.yml" <<CONFIG
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $scratch/registry}}
http: {addr: "127.0.0.1:0"}
CONFIG
    setsid docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 </dev/null &
    registry=$!
    await_line $registry 'listening on 127' "$scratch/registry.log"
    address=$(sed -n 's/.*listening on \(127[0-9.]*:[0-9]*\).*/\1/p' "$scratch/registry.log")
    image=$(PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$root/tests/e2e/images.py" \
        "http://$address" demo/busybox:latest)
    if [ ${#command[@]} -eq 0 ]; then
        command=(sh -c 'cat /etc/motd; echo "I am $(id -un) on $(hostname); here is /srv:"; ls -l /srv')
    fi
fi

say "Pulling the image"
show davit pull "$image"
say "Listing the images"
show davit images
say "Running a command in a container"
show davit run --rm "$image" ${command[@]+"${command[@]}"}

if $keep; then
    say "Left running, as you asked. Go on by hand:"
    cat <<NEXT
    export DAVIT_HOST=$DAVIT_HOST PATH=$build/bin:\$PATH
    davit info
    davit run --rm $image COMMAND
    davit rmi $image
Stop and remove everything:
    kill $davitd ${registry:-}; tail --pid=$davitd -f /dev/null; rm -rf $scratch
NEXT
    scratch= # nothing to clean
else
    say "Done; the daemon is stopped now and its data removed. To go on by hand:"
    cat <<NEXT
    $0 --keep${1:+ IMAGE}      the same, with the daemon left running
    ninja -C $build && cmake --install $build --prefix /usr/local
    systemctl daemon-reload && systemctl enable --now davitd.socket davitd.service
    davit pull busybox && davit run --rm busybox echo hello
NEXT
fi
