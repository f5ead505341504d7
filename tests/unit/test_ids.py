import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from stepwell import ids

TIMES = st.integers(0, ids.MAX_TIME_MS)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
EVENT = "01HF7YAT00" + "0" * 16


@given(TIMES, NAMES, NAMES, st.integers(0, 1023))
def test_a_run_id_is_a_ulid_that_tells_its_time_and_shard(ms, app, fn, shard):
    run = ids.run_id(ms, EVENT, app, fn, shard)
    assert int(ULID.from_str(run).timestamp * 1000 + 0.5) == ms or ms > 10**14
    assert ids.ulid_ms(run) == ms
    assert ids.shard_of_run(run) == shard
    assert ids.is_ulid(run)
    assert run == ids.run_id(ms, EVENT, app, fn, shard)


def test_another_function_or_event_is_another_run():
    made = {
        ids.run_entropy(event, app, fn, 0)
        for event in (EVENT, EVENT[:-1] + "1")
        for app, fn in (("a", "b"), ("a\0b", "c"), ("a", "b\0c"), ("a-b", "c"), ("a", "b-c"))
    }
    assert len(made) == 10


@pytest.mark.parametrize("shard", [-1, 1024])
def test_there_are_1024_shards(shard):
    with pytest.raises(ValueError, match="shards are 0 to 1023"):
        ids.run_entropy(EVENT, "a", "b", shard)


@pytest.mark.parametrize("bad", ["", "x" * 26, "01HF", EVENT + "0"])
def test_what_is_no_run_id(bad):
    with pytest.raises(ValueError, match="is not a run id"):
        ids.shard_of_run(bad)


def test_what_is_no_ulid():
    assert not ids.is_ulid("8" + "0" * 25)
    assert not ids.is_ulid("0" * 25)
    assert not ids.is_ulid("U" * 26)
    with pytest.raises(ValueError, match="is not a ULID"):
        ids.ulid_ms("short")
    for ms in (-1, ids.MAX_TIME_MS + 1):
        with pytest.raises(ValueError, match="not a time a ULID can hold"):
            ids.ulid_time_chars(ms)


def test_the_events_of_a_send_have_ids_in_order():
    made = [ids.event_entropy("seed", index) for index in range(5_000)]
    assert made == sorted(set(made))
    assert all(len(one) == 16 for one in made)
    assert made[3] == ids.event_entropy("seed", 3)
    assert made[3] != ids.event_entropy("other", 3)


@given(
    st.lists(
        st.tuples(NAMES | st.sampled_from(["a", "a:1", "1:a"]), st.integers(0, 20)), min_size=2
    )
)
def test_step_keys_differ_when_ids_or_indexes_do(pairs):
    assert len({ids.step_key(*pair) for pair in pairs}) == len(set(pairs))


def test_a_counter_in_an_id_is_not_a_repeated_id():
    assert ids.step_key("a:1", 0) != ids.step_key("a", 1)
    assert ids.step_key("1:a", 0) != ids.step_key("a", 1)
    assert len(ids.step_key("a", 0)) == 16


def test_shards_are_decided_by_names_alone():
    shards = {ids.function_shard("app", f"fn{n}", 8) for n in range(200)}
    assert shards == set(range(8))
    assert ids.function_shard("app", "fn", 1) == ids.event_shard("key", 1) == 0
    assert {ids.event_shard(f"k{n}", 4) for n in range(100)} == set(range(4))
