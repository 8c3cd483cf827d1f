#!/bin/bash
# Installs what is missing, builds, and runs all tests. The last line is "N passed, N failed".
set -uo pipefail

usage()
{
    cat <<USAGE
usage: tests/run.sh [--fast] [PART...]

Parts, all of them if none is named, in this order:
  check   include arrows, formatting, clang-tidy
  unit    unit tests, release and ASan+UBSan builds
  tsan    unit tests of what uses the thread pool, under ThreadSanitizer
  e2e     end-to-end tests with the release and the ASan+UBSan daemon
  faults  kills, power cuts, failing and full disks, with a build of its own
  fuzz    each fuzz target for DAVIT_FUZZ_SECONDS (60)

  --fast  only unit and e2e, only the release build

Environment: CI (a skipped test counts as a failure), DAVIT_WERROR (warnings are errors),
DAVIT_BUILD_ROOT (where build, build-asan, ... go; default: the top of the tree).
USAGE
}

# What may be skipped in CI: a cmocka test's name or a pytest reason per line.
ALLOWED_SKIPS="sanitizers need memory of their own"

root=$(cd "$(dirname "$0")/.." && pwd)
builds=${DAVIT_BUILD_ROOT:-$root}
logs=$builds/build/test-logs
fast=false
parts=
for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit 0
        ;;
    --fast) fast=true ;;
    check | unit | tsan | e2e | faults | fuzz) parts="$parts $argument" ;;
    *)
        echo "tests/run.sh: unknown part \"$argument\"" >&2
        usage >&2
        exit 2
        ;;
    esac
done
if [ -z "$parts" ]; then
    parts="check unit tsan e2e faults fuzz"
    ! $fast || parts="unit e2e"
fi
kinds="release asan"
! $fast || kinds=release

if [ "$(id -u)" -ne 0 ]; then
    echo "tests/run.sh: needs root: the tests mount file systems and run containers" >&2
    exit 1
fi

passed=0
failed=0
failures=

count()
{
    passed=$((passed + $1))
    failed=$((failed + $2))
    [ "$2" -eq 0 ] || failures="$failures
  $3: $2 failed, see $4"
}

# Runs a stage's command with its output in a log: stage NAME COMMAND...
# Sets $log and $seconds; says how it went; shows the log's end if it failed.
stage()
{
    local name=$1 started=$SECONDS status=0

    shift
    log=$logs/${name//[ \/]/-}.log
    printf '%-24s ' "$name"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ $status -eq 0 ]; then
        echo "ok      $((SECONDS - started)) s"
    else
        echo "FAILED  $((SECONDS - started)) s (exit status $status)"
        tail -n "${DAVIT_LOG_LINES:-80}" "$log" | sed 's/^/    /'
    fi
    return $status
}

build_dir()
{
    if [ "$1" = release ]; then
        echo "$builds/build"
    else
        echo "$builds/build-$1"
    fi
}

configure_and_build()
{
    local directory options=()

    directory=$(build_dir "$1")
    [ -z "${DAVIT_WERROR:-}" ] || options+=(-DDAVIT_WERROR=ON)
    ! command -v ccache >/dev/null || options+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    cd "$root" && cmake --preset "$1" -B "$directory" "${options[@]}" && ninja -C "$directory"
}

built=
# A build that fails is one failure, and the parts that need it are not run.
build()
{
    case $built in
    *" $1=ok "*) return 0 ;;
    *" $1=failed "*) return 1 ;;
    esac
    if stage "build $1" configure_and_build "$1"; then
        built="$built $1=ok "
    else
        built="$built $1=failed "
        count 0 1 "build $1" "$log"
        return 1
    fi
}

# Counts the skips that are not on the list, in CI; $1 is ctest's log with every test's output.
unexpected_skips()
{
    local name skips=0

    [ -n "${CI:-}" ] || { echo 0; return; }
    while read -r name; do
        if ! grep -qxF "$name" <<<"$ALLOWED_SKIPS"; then
            skips=$((skips + 1))
            echo "    skipped: $name" >&2
        fi
    done < <(sed -n -e 's/^\[  SKIPPED \] \([a-zA-Z0-9_]*\)$/\1/p' \
        -e 's/^SKIPPED \[[0-9]*\] [^ ]*: //p' "$1" | sort -u)
    echo $skips
}

run_ctest()
{
    local name=$1 directory=$2 ok bad skips
    shift 2
    # Sanitizers of this age lose their way where addresses are randomised by more than 28 bits.
    # -rs: those of pytest say what they skip and why.
    PYTEST_ADDOPTS=-rs stage "$name" setarch "$(uname -m)" -R ctest --test-dir "$directory" \
        --no-tests=error --output-on-failure --timeout 300 "$@" || true
    bad=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1/p' "$log")
    ok=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\2/p' "$log")
    if [ -z "$ok" ]; then
        count 0 1 "$name" "$log"
        return
    fi
    cp "$directory/Testing/Temporary/LastTest.log" "$log.all"
    skips=$(unexpected_skips "$log.all")
    count $((ok - bad)) $((bad + skips)) "$name" "$log"
}

part_unit()
{
    local kind
    for kind in $kinds; do
        build "$kind" && run_ctest "unit $kind" "$(build_dir "$kind")" -j 2
    done
}

part_tsan()
{
    local folder
    build tsan || return 0
    for folder in proto/async daemon/store daemon/transfer daemon/image daemon/job; do
        TSAN_OPTIONS="halt_on_error=1 ${TSAN_OPTIONS:-}" \
            run_ctest "tsan $folder" "$(build_dir tsan)/tests/unit/$folder"
    done
}

run_pytest()
{
    cd "$root" && setarch "$(uname -m)" -R env "DAVIT_TEST_BIN_DIR=$1/bin" \
        PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest -p no:cacheprovider -q -rfEs --durations=10 "${@:2}"
}

# pytest_stage NAME BUILD TESTS...
pytest_stage()
{
    local summary ok bad
    stage "$1" run_pytest "$(build_dir "$2")" "${@:3}" || true
    summary=$(grep -E '^(=+ )?([0-9]+ [a-z]+(, )?)+ in [0-9.]+s' "$log" | tail -n 1)
    ok=$(echo "$summary" | grep -oE '[0-9]+ passed' | grep -oE '^[0-9]+')
    bad=$(echo "$summary" | grep -oE '[0-9]+ (failed|error)' | awk '{n += $1} END {print n + 0}')
    if [ -z "$summary" ]; then
        bad=1
    fi
    count "${ok:-0}" "$bad" "$1" "$log"
}

part_e2e()
{
    local kind
    for kind in $kinds; do
        build "$kind" && pytest_stage "e2e $kind" "$kind" tests/e2e
    done
    $fast || part_e2e_directory
}

# What is not about layers and so does not ask for both storage drivers by itself.
part_e2e_directory()
{
    local tests=tests/e2e
    export DAVIT_TEST_STORAGE_DRIVER=directory
    build release && pytest_stage "e2e directory" release $tests/test_run.py $tests/test_images.py \
        $tests/test_pull.py $tests/test_daemon.py
    unset DAVIT_TEST_STORAGE_DRIVER
}

part_faults()
{
    build faults && pytest_stage faults faults tests/faults
}

part_fuzz()
{
    local summary
    stage fuzz env "DAVIT_FUZZ_BUILD=$builds/build-fuzz" "$root/tests/fuzz/run.sh" || true
    summary=$(grep -E '^fuzz: [0-9]+ passed' "$log" | tail -n 1)
    if [ -z "$summary" ]; then
        count 0 1 fuzz "$log"
        return
    fi
    count "$(echo "$summary" | awk '{print $2}')" "$(echo "$summary" | awk '{print $4}')" fuzz "$log"
}

sources()
{
    find "$root/proto" "$root/daemon" "$root/client" "$root/tests" -name '*.[ch]' | sort
}

check_format()
{
    local files
    if ! clang-format --version | grep -q 'version 14\.'; then
        echo "only clang-format 14 formats as the code is formatted; not checked"
        return
    fi
    mapfile -t files < <(sources)
    clang-format --dry-run -Werror "${files[@]}"
}

# Only what is compiled into programs: the rest has no compile command.
check_tidy()
{
    local files
    mapfile -t files < <(sources | grep '\.c$' | grep -v '/tests/')
    # Clang knows not all of gcc's warnings, and sees no use in a cleanup attribute.
    printf '%s\0' "${files[@]}" | xargs -0 -n 4 -P 2 clang-tidy --quiet -p "$(build_dir release)" \
        --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-unused-variable
}

part_check()
{
    local name
    for name in includes format tidy; do
        case $name in
        includes) command=("$root/tests/check_includes.py") ;;
        format) command=(check_format) ;;
        tidy)
            build release || continue
            command=(check_tidy)
            ;;
        esac
        if stage "check $name" "${command[@]}"; then
            count 1 0 "check $name" "$log"
        else
            count 0 1 "check $name" "$log"
        fi
    done
}

mkdir -p "$logs"
if ! stage "install packages" "$root/third_party/deps.sh" build run test; then
    count 0 1 "install packages" "$log"
else
    for part in $parts; do
        "part_$part"
    done
fi
echo "$SECONDS s in all$failures"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
