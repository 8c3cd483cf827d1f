"""Jobs: listed, watched by many, joined, left, cancelled, remembered, resumed."""

import signal

import grpc
import images
import pytest
from api import detail
from conftest import Davit
from fault_proxy import FaultProxy
from fault_registry import Fault, FaultRegistry

pytest_plugins = ["api"]

SIZE = 2_000_000


@pytest.fixture
def slow():
    with FaultRegistry() as registry:
        yield registry


def one_layer(size=SIZE, seed=1):
    """Bytes that do not compress, so that the blob is as large."""
    return images.image([images.layer([images.file("data", images.payload(size, seed, 0))])])


def held(registry, repository="jobs/held", made=None):
    """A name whose layer stalls in its middle until release()."""
    made = made or one_layer()
    name = registry.push(repository, made)
    registry.fault(made.layers[0].digest, Fault(stall_after=SIZE // 4))
    return name, made


def begin(api, registry, name, **request):
    """A pull that has begun to fetch: (the call, its id)."""
    call = api.pull(name, **request)
    job_id = next(call).job.id
    registry.wait_stalled()
    return call, job_id


def last(call):
    return list(call)[-1].job


def ended(api, job_id):
    return last(api.watch_job(job_id))


# --- Watching ------------------------------------------------------------------------------------


def test_a_job_is_listed_watched_and_remembered(api, slow):
    name, made = held(slow)
    call, job_id = begin(api, slow, name)
    job, = api.list_jobs()
    assert (job.id, job.subject, job.state) == (job_id, name, api.jobs.Job.RUNNING)
    assert (job.kind, job.watchers, len(job.progress.items)) == (api.jobs.Job.PULL, 1, 0)
    assert job.pull.repository == "jobs/held" and job.started_unix_ms > 0
    watch = api.watch_job(job_id[:6])
    assert next(watch).job.state == api.jobs.Job.RUNNING
    slow.release()
    assert last(watch).pull_result.digest == made.digest
    assert last(call).pull_result.digest == made.digest
    assert not api.list_jobs()
    job, = api.list_jobs(everything=True)
    assert (job.id, job.state) == (job_id, api.jobs.Job.DONE)
    assert job.pull_result.digest == made.digest and job.progress.percent == 100
    assert job.ended_unix_ms >= job.started_unix_ms


def test_two_pulls_of_one_image_are_one_job(api, slow):
    name, made = held(slow)
    call, job_id = begin(api, slow, name, limit_bytes_per_second=1 << 40)
    second = api.pull(name)
    job = next(second).job
    assert (job.id, job.limit_bytes_per_second) == (job_id, 1 << 40)
    third = api.pull(name, limit_bytes_per_second=1 << 41)  # the last word counts
    assert next(third).job.id == job_id
    assert api.list_jobs()[0].limit_bytes_per_second == 1 << 41
    third.cancel()
    other = api.pull(name, platform="linux/arm64")  # another image, so another job
    assert next(other).job.id != job_id
    stranger = api.pull(name, auth=api.images.RegistryAuth(username="u", password="p"))
    assert next(stranger).job.id != job_id
    assert {job.watchers for job in api.list_jobs() if job.id == job_id} <= {2, 3}
    other.cancel()
    slow.release()
    assert {last(one).pull_result.digest for one in (call, second, stranger)} == {made.digest}
    assert slow.count("GET", made.layers[0].digest) == 1


def test_a_registry_that_asks_to_wait_before_the_manifest_is_told_of(api, slow, davit):
    name = slow.push("jobs/busy", one_layer())
    slow.fault("/manifests/", Fault(status=429, headers={"Retry-After": "1"}, body=b""), times=1)
    items = [item for update in api.pull(name)
             if update.job.progress.phase == api.jobs.JobProgress.RESOLVING
             for item in update.job.progress.items]
    assert {(item.id, item.state) for item in items} == {("latest", api.jobs.JobItem.RATE_LIMITED)}
    assert "429" in items[0].error and items[0].until_unix_ms > 0
    slow.fault("/manifests/", Fault(status=503, headers={"Retry-After": "1"}, body=b""), times=1)
    said = davit("pull", name).stdout
    assert said.startswith("latest: Rate-limited by the registry, goes on in 1 second: ")
    assert "latest: Pulling fs layer" not in said


def test_fifty_reconnects_lose_nothing_and_see_no_falling_percentage(api, slow):
    made = one_layer()
    name = slow.push("jobs/dripping", made)
    slow.fault(made.layers[0].digest, Fault(drip=(SIZE // 100, 0.02)))
    job_id = last(api.pull(name, detach=True)).id
    sequence = percent = 0
    for _ in range(50):
        watch = api.watch_job(job_id, sequence)
        job = next(watch).job
        watch.cancel()
        assert job.progress.sequence > sequence or job.state != api.jobs.Job.RUNNING
        assert job.progress.percent >= percent
        sequence, percent = job.progress.sequence, job.progress.percent
    for update in api.watch_job(job_id, sequence):
        assert update.job.progress.percent >= percent
        percent = update.job.progress.percent
    assert update.job.pull_result.digest == made.digest and percent == 100
    for since in (0, update.job.progress.sequence, 1 << 62):
        assert ended(api, job_id).pull_result.digest == made.digest
        assert next(api.watch_job(job_id, since)).job.state == api.jobs.Job.DONE


def test_snapshots_come_at_most_ten_times_a_second(api, slow):
    made = one_layer()
    name = slow.push("jobs/paced", made)
    slow.fault(made.layers[0].digest, Fault(drip=(SIZE // 200, 0.005)))
    updates = list(api.pull(name))
    seconds = (updates[-1].job.ended_unix_ms - updates[0].job.started_unix_ms) / 1000
    assert 3 <= len(updates) <= seconds * 10 + 3
    sequences = [one.job.progress.sequence for one in updates]
    assert sequences == sorted(set(sequences))


def test_a_watcher_that_never_reads_slows_nobody(davitd, api, make_api, slow):
    made = one_layer()
    name = slow.push("jobs/deaf", made)
    slow.fault(made.layers[0].digest, Fault(drip=(SIZE // 400, 0.005)))
    job_id = last(api.pull(name, detach=True)).id
    # gRPC reads ahead by itself: one message, and here no more than these bytes.
    deaf = make_api(davitd, [("grpc.http2.lookahead_bytes", 64), ("grpc.http2.bdp_probe", 0)])
    calls = [deaf.watch_job(job_id) for _ in range(20)]
    assert ended(api, job_id).state == api.jobs.Job.DONE
    # What waited for them is not all that has been, but the newest, with the result.
    for updates in map(list, calls):
        assert len(updates) <= 4
        assert updates[-1].job.pull_result.digest == made.digest


# --- Leaving and cancelling ----------------------------------------------------------------------


def test_who_said_so_cancels_by_leaving(api, slow):
    name, _ = held(slow)
    call, job_id = begin(api, slow, name)
    call.cancel()
    job = ended(api, job_id)
    assert (job.state, job.failure.reason) == (api.jobs.Job.CANCELLED, "JOB_CANCELLED")
    assert not api.list()


def test_others_leave_it_running(api, slow):
    name, made = held(slow)
    call, job_id = begin(api, slow, name, cancel_on_leave=False)
    call.cancel()
    joined = api.pull(name)
    assert next(joined).job.id == job_id
    joined.cancel()  # it would cancel, but the first one wanted it to go on
    watch = api.watch_job(job_id)
    next(watch)
    watch.cancel()
    slow.release()
    assert ended(api, job_id).pull_result.digest == made.digest


def test_the_last_who_asked_for_it_cancels(api, slow):
    name, _ = held(slow)
    call, job_id = begin(api, slow, name)
    second = api.pull(name)
    next(second)
    watch = api.watch_job(job_id)  # who merely looks does not keep it
    next(watch)
    call.cancel()
    assert [job.id for job in api.list_jobs()] == [job_id]
    second.cancel()
    assert last(watch).state == api.jobs.Job.CANCELLED


def test_cancel_tells_all_who_watch(api, slow):
    name, _ = held(slow)
    call, job_id = begin(api, slow, name)
    watch = api.watch_job(job_id)
    next(watch)
    assert api.cancel_job(job_id[:8]).id == job_id
    assert last(watch).state == api.jobs.Job.CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    assert detail(api, caught.value).reason == "JOB_CANCELLED"
    assert api.cancel_job(job_id).state == api.jobs.Job.CANCELLED  # again: nothing happens


def test_no_such_job(api):
    for ask in (api.cancel_job, api.update_job, lambda job_id: list(api.watch_job(job_id))):
        for job_id in ("", "0123456789ab", "nonsense", "%"):
            with pytest.raises(grpc.RpcError) as caught:
                ask(job_id)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            assert detail(api, caught.value).reason == "JOB_NOT_FOUND"


def test_a_failure_is_remembered(api, slow):
    with pytest.raises(grpc.RpcError) as caught:
        list(api.pull(f"{slow.host}/no/such"))
    assert detail(api, caught.value).reason == "MANIFEST_UNKNOWN"
    job, = api.list_jobs(everything=True)
    assert (job.state, job.failure.reason) == (api.jobs.Job.FAILED, "MANIFEST_UNKNOWN")
    assert job.failure.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert ended(api, job.id).failure == job.failure


# --- The daemon stops ----------------------------------------------------------------------------


def test_results_outlive_the_daemon(davitd, make_api, slow):
    made = one_layer()
    name = slow.push("jobs/kept", made)
    first = make_api(davitd)
    done = last(first.pull(name))
    davitd.stop()
    davitd.start()
    second = make_api(davitd)
    again = ended(second, done.id)
    assert again.pull_result == done.pull_result and again.pull == done.pull
    assert again.progress.sequence == done.progress.sequence
    assert (again.state, again.ended_unix_ms) == (done.state, done.ended_unix_ms)


def test_a_stop_tells_the_watchers(davitd, make_api, slow):
    name, made = held(slow)
    first = make_api(davitd)
    call, job_id = begin(first, slow, name)
    watch = first.watch_job(job_id)
    next(watch)
    davitd.process.send_signal(signal.SIGTERM)
    job = last(watch)
    assert (job.state, job.failure.reason) == (first.jobs.Job.INTERRUPTED, "JOB_INTERRUPTED")
    assert job.failure.hint == "run the command again: it goes on where this one was"
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert detail(first, caught.value).reason == "JOB_INTERRUPTED"
    davitd.wait_exit()
    davitd.start()
    second = make_api(davitd)
    assert ended(second, job_id).failure == job.failure
    slow.release()
    slow.clear_faults()
    assert last(second.pull(name)).pull_result.digest == made.digest


def test_a_kill_interrupts(davitd, make_api, slow):
    name, _ = held(slow)
    first = make_api(davitd)
    call = first.pull(name, detach=True)
    job_id = last(call).id  # what was told is remembered
    davitd.kill()
    davitd.start()
    second = make_api(davitd)
    job = ended(second, job_id)
    assert (job.state, job.failure.reason) == (second.jobs.Job.INTERRUPTED, "JOB_INTERRUPTED")
    assert not second.list_jobs()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_resumed_when_asked_for(make_davitd, make_api, slow, how):
    davitd = make_davitd("--resume-jobs")
    name, made = held(slow)
    first = make_api(davitd)
    call, job_id = begin(first, slow, name, limit_bytes_per_second=1 << 40)
    seen = next(call).job.progress.sequence
    getattr(davitd, how)()
    slow.clear_faults()
    slow.release()
    davitd.start()
    second = make_api(davitd)
    updates = list(second.watch_job(job_id, seen))
    assert all(one.job.progress.sequence > seen for one in updates)
    assert updates[-1].job.pull_result.digest == made.digest
    assert [one.id for one in second.list()] == [made.id]


def test_a_push_is_resumed_too(make_davitd, make_api, registry):
    davitd = make_davitd("--resume-jobs")
    davit = Davit(davitd)
    made = one_layer()
    source = registry.push("jobs/source", made)
    davit("pull", "-q", source)
    with FaultProxy(registry) as proxy:
        target = f"{proxy.host}/jobs/target:latest"
        davit("tag", source, target)
        proxy.fault("/blobs/", Fault(hold=True), method="HEAD")
        job_id, = davit("push", "--detach", target).stdout.split()
        proxy.wait_stalled()
        davitd.kill()
        proxy.clear_faults()
        proxy.release()
        davitd.start()
        job = ended(make_api(davitd), job_id)
        assert (job.kind, job.state) == (job.PUSH, job.DONE), job.failure
        assert job.push_result.tags
        assert proxy.count("PUT", "/manifests/latest") == 1


def test_what_had_credentials_is_not_resumed_and_no_secret_is_kept(make_davitd, make_api, slow):
    davitd = make_davitd("--resume-jobs")
    slow.require_basic("someone", "s3cr3t-word")
    name, _ = held(slow)
    first = make_api(davitd)
    auth = first.images.RegistryAuth(username="someone", password="s3cr3t-word")
    _, job_id = begin(first, slow, name, auth=auth)
    davitd.kill()
    kept = b"".join(path.read_bytes() for path in davitd.data_root.glob("davit.db*"))
    assert job_id.encode() in kept and b"s3cr3t-word" not in kept
    slow.release()
    davitd.start()
    job = ended(make_api(davitd), job_id)
    assert (job.state, job.failure.hint) == (
        first.jobs.Job.INTERRUPTED, "run the command again: it goes on where this one was")


# --- davit jobs ----------------------------------------------------------------------------------


def test_the_command_line(davit, api, slow):
    name, made = held(slow)
    started = davit("pull", "--detach", name)
    job_id, = started.stdout.split()
    slow.wait_stalled()
    heading, row = davit("jobs").stdout.splitlines()
    assert heading.split("  ")[0] == "JOB ID"
    assert [one.strip() for one in row.split("  ") if one.strip()][:4] == [
        job_id, "pull", name, "running"]
    assert davit("jobs", "-q").stdout.split() == [job_id]
    form = "{{.ID}} {{.Kind}} {{.State}} {{.Limit}}"
    assert davit("jobs", "--format", form).stdout.split() == [job_id, "pull", "running"]
    assert davit("jobs", "update", "--limit-rate", "300M", job_id[:6]).stdout == f"{job_id[:6]}\n"
    assert davit("jobs", "ls", "--format", form).stdout.split()[-1] == "300MB/s"
    assert davit("jobs", "-q", "-f", "kind=push").stdout == ""
    assert davit("jobs", "-q", "-f", "kind=pull", "-f", f"subject={name}").stdout.split() == [job_id]
    watch = davit.start("jobs", "watch", job_id, text=True)
    slow.release()
    out, _ = watch.communicate(timeout=60)
    assert watch.returncode == 0 and f"Digest: {made.digest}" in out
    assert davit("jobs", "-q").stdout == ""
    assert davit("jobs", "-aq").stdout.split() == [job_id]
    assert davit("jobs", "-q", "-f", "state=done").stdout.split() == [job_id]
    assert f"Digest: {made.digest}" in davit("jobs", "watch", job_id).stdout


def test_cancelled_on_the_command_line(davit, slow):
    name, _ = held(slow)
    job_id, = davit("pull", "-d", name).stdout.split()
    slow.wait_stalled()
    watch = davit.start("jobs", "watch", "--progress", "plain", job_id, text=True)
    assert watch.stdout.readline() == "latest: Pulling from jobs/held\n"
    result = davit("jobs", "cancel", job_id, "nonsense", check=False)
    assert (result.code, result.stdout) == (1, f"{job_id}\n")
    assert "No such job: nonsense" in result.stderr
    _, err = watch.communicate(timeout=60)
    assert watch.returncode == 1 and f"job {job_id} ({name}) was cancelled" in err


@pytest.mark.parametrize("command", [["pull"], ["jobs", "watch"]])
def test_a_stop_is_told_on_the_command_line(davitd, davit, slow, command):
    name, _ = held(slow)
    job_id, = davit("pull", "-d", name).stdout.split()
    slow.wait_stalled()
    watch = davit.start(*command, name if command == ["pull"] else job_id, text=True)
    assert watch.stdout.readline()
    davitd.process.send_signal(signal.SIGTERM)
    _, err = watch.communicate(timeout=60)
    assert watch.returncode == 1
    assert f"job {job_id} ({name}) was interrupted: the daemon was stopped\n" in err
    assert "Hint: run the command again: it goes on where this one was\n" in err
    davitd.wait_exit()


# --- Other kinds of jobs -------------------------------------------------------------------------


def test_a_verification_is_a_job(api, davit, registry):
    davit("pull", "-q", registry.push("jobs/verified", images.busybox_image()))
    stub = api.stub("System/Verify", "unary_stream", api.jobs.JobUpdate)
    seen = [one.job for one in stub(api.system.VerifyRequest(cancel_on_leave=True), timeout=60)]
    job = next(one for one in api.list_jobs(everything=True) if one.kind == api.jobs.Job.VERIFY)
    assert {one.id for one in seen} == {job.id} and job.subject == "all images"
    assert seen[-1].verify_result.images == 1 and seen[-1].verify_result.problems == 0
    assert seen[-1].progress.percent == 100
    assert ended(api, job.id).verify_result == seen[-1].verify_result
    assert "1 image, 1 layer verified" in davit("system", "verify").stdout
    assert "1 image, 1 layer verified" in davit("jobs", "watch", job.id).stdout
    assert "Total reclaimed space: " in davit("system", "prune", "-f").stdout
    newest = davit("jobs", "-aq").stdout.split()[0]
    assert davit("jobs", "watch", newest).stdout == "Total reclaimed space: 0B\n"
