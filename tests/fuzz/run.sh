#!/bin/bash
# Builds the fuzz targets and runs each for a while: run.sh [TARGET...]. See README.md here.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${DAVIT_FUZZ_BUILD:-$root/build-fuzz}
seconds=${DAVIT_FUZZ_SECONDS:-60}
jobs=${DAVIT_FUZZ_JOBS:-2}

case ${1:-} in
-h | --help)
    echo "usage: run.sh [TARGET...]   (DAVIT_FUZZ_SECONDS=$seconds, DAVIT_FUZZ_JOBS=$jobs)"
    exit 0
    ;;
esac

# Not the preset, so that DAVIT_FUZZ_BUILD can be elsewhere.
launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang \
    -DDAVIT_FUZZ=ON "${launcher[@]}" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
rm -f "$build.log"
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(ninja -C "$build" -t targets all | sed -n 's|^fuzz/\(fuzz_[a-z0-9_]*\): .*|\1|p')
fi
if [ ${#targets[@]} -eq 0 ]; then
    echo "run.sh: there are no fuzz targets" >&2
    exit 1
fi
nice ninja -C "$build" "${targets[@]}" | tail -n 3

run_one()
{
    local target=$1
    local seeds=$root/tests/fuzz/corpus/$target learnt=$build/learnt/$target
    local log=$build/$target.log arguments=()

    mkdir -p "$learnt" "$build/found"
    [ ! -d "$seeds" ] || arguments=("$seeds")
    if "$build/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="$build/found/$target-" -print_final_stats=1 -verbosity=1 \
        "$learnt" "${arguments[@]}" >"$log" 2>&1 </dev/null; then
        echo "ok      $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
    else
        echo "FAILED  $target: see $log"
        tail -n 40 "$log"
        return 1
    fi
}

# A line per target as it ends; at most $jobs at once.
failed=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$jobs" ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
    run_one "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
echo "fuzz: $((${#targets[@]} - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
