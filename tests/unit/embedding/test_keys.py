from __future__ import annotations

from unjam.embedding.keys import QUARANTINE_S, Key, KeyPool, NoKey


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool(*entries: str, rotate: bool = False) -> tuple[KeyPool, Clock]:
    clock = Clock()
    return KeyPool(entries, rotate=rotate, clock=clock), clock


def picked(keys: KeyPool) -> Key:
    found = keys.candidates()
    assert not isinstance(found, NoKey)
    keys.use(found[0])
    return found[0]


def refused(keys: KeyPool) -> NoKey:
    found = keys.candidates()
    assert isinstance(found, NoKey)
    return found


def test_without_rotation_the_first_key_does_all():
    keys, _ = pool("a", "b")
    assert [picked(keys).secret for _ in range(3)] == ["a", "a", "a"]


def test_rotation_goes_round():
    keys, _ = pool("a", "b", "c", rotate=True)
    assert [picked(keys).secret for _ in range(4)] == ["a", "b", "c", "a"]


def test_a_throttled_group_rests_as_a_whole():
    keys, clock = pool("one:a", "one:b", "two:c", rotate=True)
    keys.rest(picked(keys).group, 7)
    assert {picked(keys).secret for _ in range(4)} == {"c"}
    clock.now += 7
    assert {picked(keys).secret for _ in range(3)} == {"a", "b", "c"}


def test_ungrouped_keys_share_one_limit():
    keys, _ = pool("a", "b", rotate=True)
    keys.rest(picked(keys).group, 3)
    assert refused(keys) == NoKey("embedding_throttled", 3.0)


def test_without_rotation_a_throttle_is_not_dodged():
    keys, _ = pool("one:a", "two:b")
    keys.rest(picked(keys).group, 3)
    assert refused(keys).code == "embedding_throttled"


def test_a_shorter_rest_does_not_end_a_longer_one():
    keys, _ = pool("a")
    key = picked(keys)
    keys.rest(key.group, 30)
    keys.rest(key.group, 1)
    assert refused(keys).wait_s == 30
    assert not keys.is_ready(key)


def test_a_refused_key_leaves_the_others_and_comes_back():
    keys, clock = pool("a", "b")
    keys.bar(picked(keys), "embedding_unauthorised")
    assert picked(keys).secret == "b"
    keys.bar(picked(keys), "embedding_unauthorised")
    assert refused(keys) == NoKey("embedding_unauthorised", QUARANTINE_S)
    clock.now += QUARANTINE_S
    assert picked(keys).secret == "a"


def test_an_empty_account_is_told_before_a_wrong_key():
    keys, _ = pool("a", "b")
    keys.bar(picked(keys), "embedding_unauthorised")
    keys.bar(picked(keys), "embedding_quota")
    assert refused(keys).code == "embedding_quota"


def test_secrets_are_not_printed():
    keys, _ = pool("team:sk-secret")
    key = picked(keys)
    assert (key.group, key.secret) == ("team", "sk-secret")
    assert "sk-secret" not in repr(key)


def test_no_keys_at_all():
    keys, _ = pool()
    assert refused(keys).code == "embedding_unauthorised"


def test_candidates_begin_after_the_last_used_and_go_round():
    keys, _ = pool("a", "b", "c", rotate=True)
    picked(keys)
    found = keys.candidates()
    assert not isinstance(found, NoKey)
    assert [key.secret for key in found] == ["b", "c", "a"]


def test_what_other_processes_saw_refused_is_not_tried_here():
    here, clock = pool("a", "team:b")
    there, _ = pool("team:b")
    here.learn({picked(there).id: ("embedding_unauthorised", 20.0), "unknown": ("x", 5.0)})
    assert here.ready() == 1
    here.learn({picked(here).id: ("embedding_quota", 20.0)})
    assert refused(here) == NoKey("embedding_quota", 20.0)
    clock.now += 20
    assert here.ready() == 2


def test_a_key_is_told_by_a_digest_and_named_without_its_secret():
    keys, _ = pool("first", "team:sk-secret")
    second = [key for key in (keys.candidates() or []) if isinstance(key, Key)]
    assert "first" not in second[0].id
    assert second[0].name == "1/2"
    keys.bar(second[0], "embedding_unauthorised")
    assert picked(keys).name == "2/2 (team)"
