from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from typing import Any

import httpx
import numpy as np
import pytest

from unjam.testing.openai_process import FakeOpenAI


def ask(fake: FakeOpenAI, value: Any, **fields: Any) -> httpx.Response:
    body = {"input": value, "model": "text-embedding-3-small", **fields}
    return httpx.post(f"{fake.url}/embeddings", json=body, headers={"authorization": "Bearer k"})


def vectors(answer: httpx.Response) -> Any:
    return np.array([row["embedding"] for row in answer.raise_for_status().json()["data"]])


def test_all_kinds_of_input_and_encoding(fake_openai: FakeOpenAI):
    one = vectors(ask(fake_openai, "text"))
    two = vectors(ask(fake_openai, ["text", "other"]))
    np.testing.assert_array_equal(one[0], two[0])
    assert abs(float(two[0] @ two[1])) < 0.2
    assert vectors(ask(fake_openai, [1, 2, 3])).shape == (1, 1536)
    assert vectors(ask(fake_openai, [[1, 2], [3]], dimensions=8)).shape == (2, 8)
    coded = ask(fake_openai, "text", encoding_format="base64").json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(coded), "<f4"), one[0], atol=1e-6)
    assert httpx.get(f"{fake_openai.url}/models").json()["data"]


def test_bags_of_words_find_the_right_text(fake_openai: FakeOpenAI):
    fake_openai.control(mode="bag")
    found = vectors(
        ask(fake_openai, ["the queue is stuck", "bread and butter", "대기열이 멈췄다", "빵과 버터"])
    )
    queries = vectors(ask(fake_openai, ["why is my queue stuck?", "멈춘 대기열"]))
    assert list(np.argmax(queries @ found.T, axis=1)) == [0, 2]


def test_latent_vectors_are_near_each_other_as_a_models_are(fake_openai: FakeOpenAI):
    def near(mode: str) -> float:
        """The mean cosine of a text and its nearest among 200."""
        fake_openai.control(mode=mode)
        rows = vectors(ask(fake_openai, [f"text {n}" for n in range(200)]))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        alike = rows @ rows.T - 2 * np.eye(len(rows))
        return float(alike.max(axis=1).mean())

    assert near("hash") < 0.15
    assert near("latent") > 0.4


def test_the_limit_is_the_projects(fake_openai: FakeOpenAI):
    fake_openai.control(requests_per_minute=2, window_s=3600)
    codes = [ask(fake_openai, "x").status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert 1700 < float(ask(fake_openai, "x").headers["retry-after"]) <= 1800
    fake_openai.control(projects={"k": "another"})
    assert ask(fake_openai, "x").status_code == 200


def test_faults_come_in_order_and_reset_ends_them(fake_openai: FakeOpenAI):
    fake_openai.control(next_faults=["500", "401"], fault="503")
    assert [ask(fake_openai, "x").status_code for _ in range(3)] == [500, 401, 503]
    fake_openai.reset()
    assert ask(fake_openai, "x").status_code == 200
    assert fake_openai.stats()["statuses"] == {"200": 1}


def test_an_unknown_field_is_told(fake_openai: FakeOpenAI):
    with pytest.raises(ValueError, match="latencyms"):
        fake_openai.control(latencyms=1)


def test_it_ends_with_its_parent():
    code = (
        "import time; from unjam.testing.openai_process import FakeOpenAI\n"
        "fake = FakeOpenAI().start(); print(fake._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    handle = os.pidfd_open(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    try:
        assert _ends(handle, 10)
    finally:
        os.close(handle)
        parent.stdout.close()


def _ends(handle: int, seconds: float) -> bool:
    import select

    began = time.monotonic()
    ready, _, _ = select.select([handle], [], [], seconds)
    return bool(ready) and time.monotonic() - began < seconds
