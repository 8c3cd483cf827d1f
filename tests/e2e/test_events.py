"""Events: Docker's names for what happens to images, numbered, kept, streamed."""

import json
import re
import sqlite3
import time

import grpc
import images
import pytest
from api import WAIT, detail

pytest_plugins = ["api"]

LABELS = {"z": "1", "a.label": "x y"}


def subscribe(api, timeout=WAIT, **request):
    stub = api.stub("Events/Subscribe", "unary_stream", api.events.Event)
    return stub(api.events.SubscribeRequest(**request), timeout=timeout)


def take(call, count):
    return [next(call) for _ in range(count)]


def past(api, **request):
    """Those that have happened so far."""
    return list(subscribe(api, **{"since_id": 0, "until_unix_ns": time.time_ns(), **request}))


def attributes(event):
    return {each.name: each.value for each in event.attributes}


def told(events):
    return [(one.action, one.actor_id, attributes(one)) for one in events]


def tags(events):
    """By them add_events() numbers what it makes."""
    return [one.actor_id for one in events]


def add_events(daemon, count, start=1):
    """Into the database of a daemon that does not run: events from another time."""
    with sqlite3.connect(daemon.data_root / "davit.db") as database:
        database.executemany(
            "INSERT INTO events (time_unix_ns, type, action, actor, attributes)"
            " VALUES (?, 'image', 'pull', ?, '{\"name\":\"filler\"}')",
            ((time.time_ns(), f"filler:{i}") for i in range(start, start + count)))
    database.close()


def change(daemon, sql):
    with sqlite3.connect(daemon.data_root / "davit.db") as database:
        database.execute(sql)
    database.close()


def test_images_as_docker_tells_of_them(api, davit, registry):
    """What is expected is what dockerd 20.10 tells after the same commands."""
    made = images.busybox_image(config={"Labels": LABELS})
    name = registry.push("events/app", made)
    repository = name.rsplit(":", 1)[0]
    digest = f"{repository}@{made.digest}"
    live = subscribe(api, since_id=0)
    for command in (["pull", name], ["pull", name], ["pull", digest], ["rmi", "-f", made.id],
                    ["pull", name], ["rmi", name]):
        davit(*command)
    of_id, pulled = {**LABELS, "name": made.id}, {**LABELS, "name": repository}
    expected = [
        ("pull", name, pulled), ("pull", name, pulled), ("pull", digest, pulled),
        ("untag", made.id, of_id), ("untag", made.id, of_id),  # its tag and its digest
        ("delete", made.id, {"name": made.id}),
        ("pull", name, pulled), ("untag", made.id, of_id), ("delete", made.id, {"name": made.id})]
    events = take(live, len(expected))
    assert told(events) == expected
    assert [one.id for one in events] == list(range(1, len(expected) + 1))
    assert {one.type for one in events} == {"image"}
    times = [one.time_unix_ns for one in events]
    assert times == sorted(times) and abs(times[0] - time.time_ns()) < 120e9
    assert past(api) == events
    live.cancel()


def test_numbers_outlive_stops_and_kills(davitd, davit, make_api, registry):
    name = registry.push("events/kept", images.busybox_image())
    seen = []
    for end in (davitd.stop, davitd.kill, davitd.stop):
        davit("pull", name)
        api = make_api(davitd)
        before, seen = seen, past(api)
        assert seen[:len(before)] == before and len(seen) == len(before) + 1
        end()
        change(davitd, "DELETE FROM events WHERE id > 2")  # a number that was used stays used
        seen = seen[:2]
        davitd.start()
    davit("pull", name)
    assert [one.id for one in past(make_api(davitd)) if one.type == "image"] == [1, 2, 4]


def test_from_and_to(davitd, make_api):
    davitd.stop()
    add_events(davitd, 200)
    davitd.start()
    api = make_api(davitd)
    everything = past(api)
    assert tags(everything) == [f"filler:{i}" for i in range(1, 201)]
    assert past(api, since_id=150) == everything[150:]
    assert past(api, since_id=200) == []
    middle = everything[100].time_unix_ns
    assert past(api, since_unix_ns=middle) == everything[100:]
    assert past(api, until_unix_ns=middle) == everything[:101]
    assert past(api, since_unix_ns=middle, until_unix_ns=middle) == everything[100:101]
    # One that is not there yet: the stream waits, and ends when it is told to.
    began = time.monotonic()
    assert past(api, since_id=1000, until_unix_ns=time.time_ns() + 300_000_000) == []
    assert 0.2 < time.monotonic() - began < 10


def test_filters(davitd, make_api, davit, registry):
    made = images.busybox_image(config={"Labels": LABELS})
    name = registry.push("events/filtered", made)
    other = registry.push("events/other", images.busybox_image())
    for command in (["pull", name], ["pull", other], ["rmi", name]):
        davit(*command)
    api = make_api(davitd)

    def actions(*filters):
        return [one.action for one in past(api, filters=filters)]

    everything = ["pull", "pull", "untag", "delete"]
    assert actions() == actions("type=image") == everything
    assert actions("type=container") == actions("container=x") == []
    assert actions("event=pull") == ["pull", "pull"]
    assert actions("event=pull", "event=delete") == ["pull", "pull", "delete"]
    repository = name.rsplit(":", 1)[0]
    assert actions(f"image={name}") == actions(f"image={repository}") == ["pull"]
    assert actions(f"image={made.id}") == ["untag", "delete"]
    assert actions("label=z") == actions("label=z=1", "label=a.label") == ["pull", "untag"]
    assert actions("label=z=2") == actions("label=z", "label=none") == []
    assert actions("event=delete", f"image={repository}") == []
    with pytest.raises(grpc.RpcError) as caught:
        actions("flavour=sweet")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "invalid filter 'flavour'"
    assert detail(api, caught.value).reason == "INVALID_FILTER"
    with pytest.raises(grpc.RpcError):
        actions(*["event=pull"] * 101)


def test_what_is_gone_is_told(davitd, make_api):
    davitd.stop()
    add_events(davitd, 100)
    change(davitd, "DELETE FROM events WHERE id <= 60")
    davitd.start()
    api = make_api(davitd)
    gap, *rest = past(api, since_id=10)
    assert (gap.type, gap.action, attributes(gap)) == ("davit", "gap", {"first": "11", "last": "60"})
    assert [one.id for one in rest] == list(range(61, 101))
    assert [one.id for one in past(api, since_id=60)] == list(range(61, 101))
    assert past(api, since_id=10, filters=["event=none"])[0].action == "gap"
    davitd.stop()
    change(davitd, "DELETE FROM events")
    davitd.start()
    gap, = past(make_api(davitd), since_id=70)
    assert attributes(gap) == {"first": "71", "last": "100"}


def test_a_slow_reader_gets_all_and_holds_up_nobody(davitd, make_api, davit, registry):
    davitd.stop()
    add_events(davitd, 20_000)
    davitd.start()
    api = make_api(davitd)
    slow = subscribe(api, since_id=0)
    assert next(slow).id == 1  # and then it reads no more, for a while
    name = registry.push("events/besides", images.busybox_image())
    davit("pull", name)
    assert past(api, since_id=20_000)[0].actor_id == name
    assert [one.id for one in take(slow, 20_000)] == list(range(2, 20_002))
    slow.cancel()


def test_the_oldest_are_dropped(davitd, make_api, davit, registry):
    davitd.stop()
    add_events(davitd, 3)
    change(davitd, "UPDATE events SET id = id + 200000 WHERE id = 3")
    change(davitd, "UPDATE sqlite_sequence SET seq = 200003 WHERE name = 'events'")
    davitd.start()
    davit("pull", registry.push("events/newest", images.busybox_image()))
    events = past(make_api(davitd))
    assert [one.id for one in events] == [200_002, 200_003, 200_004]
    assert attributes(events[0]) == {"first": "1", "last": "200002"}


# --- davit events --------------------------------------------------------------------------------


def test_printed_as_docker_prints_them(davit, registry):
    """What is expected are the lines of docker events 20.10."""
    made = images.busybox_image(config={"Labels": LABELS})
    name = registry.push("events/app", made)
    repository = name.rsplit(":", 1)[0]
    davit("pull", "-q", name)
    davit("rmi", name)
    until = ["--until", "0s"]
    lines = davit("events", "--since", "10m", *until).stdout.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) "
    assert all(re.match(stamp, line) for line in lines)
    assert [re.sub(stamp, "", line) for line in lines] == [
        f"image pull {name} (a.label=x y, name={repository}, z=1)",
        f"image untag {made.id} (a.label=x y, name={made.id}, z=1)",
        f"image delete {made.id} (name={made.id})"]
    first = json.loads(davit("events", "--since", "10m", *until, "--format", "{{json .}}",
                             "-f", "event=pull").stdout)
    assert first == {
        "status": "pull", "id": name, "Type": "image", "Action": "pull",
        "Actor": {"ID": name, "Attributes": {"a.label": "x y", "name": repository, "z": "1"}},
        "scope": "local", "time": first["timeNano"] // 10**9, "timeNano": first["timeNano"],
        "number": 1}
    assert davit("events", "--since", "id:1", *until, "--format",
                 "{{.Action}} {{.Actor.Attributes.name}} {{.Number}}").stdout == (
        f"untag {made.id} 2\ndelete {made.id} 3\n")
    wrong = davit("events", "--since", "xyz", check=False)
    assert wrong.code == 125
    assert 'failed to parse value as time or duration: "xyz"' in wrong.stderr


def test_printed_as_they_come(davit, registry):
    name = registry.push("events/live", images.busybox_image())
    live = davit.start("events", "--since", "id:0", "--format", "{{.Action}}", text=True)
    davit("pull", "-q", name)
    assert live.stdout.readline() == "pull\n"
    davit("rmi", name)
    assert [live.stdout.readline() for _ in range(2)] == ["untag\n", "delete\n"]
    live.kill()
    live.communicate()
