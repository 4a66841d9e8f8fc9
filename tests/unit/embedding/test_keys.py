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
    key = keys.pick()
    assert isinstance(key, Key)
    return key


def refused(keys: KeyPool) -> NoKey:
    key = keys.pick()
    assert isinstance(key, NoKey)
    return key


def test_without_rotation_the_first_key_does_all():
    keys, _ = pool("a", "b")
    assert [picked(keys).secret for _ in range(3)] == ["a", "a", "a"]


def test_rotation_goes_round():
    keys, _ = pool("a", "b", "c", rotate=True)
    assert [picked(keys).secret for _ in range(4)] == ["a", "b", "c", "a"]


def test_a_throttled_group_rests_as_a_whole():
    keys, clock = pool("one:a", "one:b", "two:c", rotate=True)
    keys.rest(picked(keys), 7)
    assert {picked(keys).secret for _ in range(4)} == {"c"}
    clock.now += 7
    assert {picked(keys).secret for _ in range(3)} == {"a", "b", "c"}


def test_ungrouped_keys_share_one_limit():
    keys, _ = pool("a", "b", rotate=True)
    keys.rest(picked(keys), 3)
    assert refused(keys) == NoKey("embedding_throttled", 3.0)


def test_without_rotation_a_throttle_is_not_dodged():
    keys, _ = pool("one:a", "two:b")
    keys.rest(picked(keys), 3)
    assert refused(keys).code == "embedding_throttled"


def test_a_shorter_rest_does_not_end_a_longer_one():
    keys, _ = pool("a")
    key = picked(keys)
    keys.rest(key, 30)
    keys.rest(key, 1)
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
