"""The Helm chart: rendered by Helm itself, held against Kubernetes' schemas and our programs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from tests.fixtures.deployed import DEPLOY, WORKER_DRAIN_S, unknown, wrong_command
from unjam.observe.alert_table import ALERTS
from unjam.settings import Settings
from unjam.web.auth import HostNames
from unjam.web.house import Binding
from unjam.web.server import GRACE_S
from unjam.worker.worker import LEAST_IN_FLIGHT

helm = pytest.importorskip(
    "helm_python", reason="helm-python-sdk is not installed (development lock: Linux on x86_64)"
)
validator = pytest.importorskip("kubernetes_validate", reason="it is in the development lock")

CHART = DEPLOY / "k8s" / "unjam"
PARTS = ("api", "worker", "watchdog")
GIVEN = {"RAG_API_TOKEN": "a", "ADMIN_TOKEN": "b", "RAG_DATABASE_URL": "postgresql://db/unjam"}
ON = {"enabled": True}
TRIAL: dict[str, Any] = {
    "secrets": {"values": GIVEN},
    "storage": {"existingClaim": "originals"},
    "trial": {"valkey": ON, "chroma": ON},
}
LARGE: dict[str, Any] = {
    "secrets": {"existingSecret": "unjam-secrets"},
    "redis": {"url": "rediss://redis.example:6380/5"},
    "chroma": {"url": "https://chroma.example"},
    "storage": {"url": "s3://documents/rag"},
    "extraEnvFrom": [{"secretRef": {"name": "bucket-key"}}],
    "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
    "config": {"RAG_LANG": "ko", "RAG_EMBEDDING_BATCH_SIZE": 64},
    "imagePullSecrets": [{"name": "registry"}],
    "worker": {"queues": "rag_processing,rag_large_docs"},
    "autoscaling": {**ON, "maxWorkers": 40},
    "ingress": {**ON, "host": "rag.example.com", "className": "nginx", "tlsSecret": "tls"},
    "networkPolicy": {
        "apiFrom": [{"namespaceSelector": {"matchLabels": {"team": "search"}}}],
        "dashboardFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "egress": [{"ports": [{"port": 5432}, {"port": 443}]}],
    },
    "monitoring": {"serviceMonitor": ON, "prometheusRule": ON, "grafanaDashboard": ON},
}
VALUES = {"trial": TRIAL, "large": LARGE}


def objects(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(dict(values), name="demo", namespace="rag")
    return [
        found
        for name, text in files.items()
        if not name.endswith(".txt")
        for found in yaml.safe_load_all(text)
        if found is not None
    ]


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    return objects(VALUES[name])


def one(name: str, kind: str, ending: str = "") -> dict[str, Any]:
    (found,) = [
        o
        for o in rendered(name)
        if o["kind"] == kind and o["metadata"]["name"] == f"demo-unjam{ending}"
    ]
    return found


def pods(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for found in rendered(name):
        if found["kind"] in ("Deployment", "StatefulSet"):
            part = found["metadata"]["labels"]["app.kubernetes.io/component"]
            yield part, found["spec"]["template"]["spec"]


def container(name: str, part: str) -> dict[str, Any]:
    return dict(pods(name))[part]["containers"][0]


# -- the real tools -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VALUES)
def test_helms_linter_has_no_complaint(name: str) -> None:
    report = helm.lint(CHART, VALUES[name], strict=True)
    said = [m["error"] for m in report["messages"]]
    assert (report["errors"], said) == ([], ["icon is recommended"])


def held_against(version: str, some: list[dict[str, Any]]) -> None:
    for found in some:
        if "." not in found["apiVersion"].partition("/")[0] or "k8s.io" in found["apiVersion"]:
            validator.validate(found, version, strict=True)


@pytest.mark.thorough
@pytest.mark.parametrize("minor", range(25, 38))
def test_kubernetes_takes_what_comes_out(minor: int) -> None:
    assert '">=1.25.0-0"' in (CHART / "Chart.yaml").read_text()
    for name in VALUES:
        held_against(f"1.{minor}", rendered(name))


def test_a_fault_would_be_seen() -> None:
    broken = copy.deepcopy(one("trial", "Deployment", "-api"))
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(validator.ValidationError, match="livenesProbe"):
        held_against("1.37", [broken])


@pytest.mark.thorough  # two seconds of imports
def test_keda_and_the_prometheus_operator_take_theirs() -> None:
    keda = pytest.importorskip("cloudcoil.models.keda.v1alpha1", reason="development lock")
    operator = pytest.importorskip(
        "cloudcoil.models.prometheus_operator.v1", reason="development lock"
    )
    kinds = {
        "ScaledObject": keda,
        "TriggerAuthentication": keda,
        "ServiceMonitor": operator,
        "PrometheusRule": operator,
    }

    def kept(found: dict[str, Any]) -> Any:
        """What the model knows of it: a field that it does not know is gone."""
        model = getattr(kinds[found["kind"]], found["kind"]).model_validate(found)
        return model.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]

    seen = [o for o in rendered("large") if o["kind"] in kinds]
    assert {o["kind"] for o in seen} == set(kinds)
    for found in seen:
        assert kept(found) == found["spec"]
    wrong = copy.deepcopy(one("large", "ScaledObject", "-worker"))
    wrong["spec"]["maxReplicas"] = 3
    assert kept(wrong) != wrong["spec"]


# -- what must not be installed -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secrets": {"values": {}}}, "secrets.existingSecret, or secrets.values.RAG_API_TOKEN"),
        ({"secrets": {"values": GIVEN, "existingSecret": "x"}}, "exclude each other"),
        ({"trial": {"valkey": ON}}, "set chroma.url"),
        ({"trial": {"chroma": ON}}, "set redis.url"),
        ({"storage": {}}, "set storage.url"),
        ({"ingress": ON}, "ingress.host"),
        ({"secrets": {"values": {**GIVEN, "RAG_WEBHOOK_URL": "https://x"}}}, "RAG_WEBHOOK_SECRET"),
    ],
)
def test_what_would_not_work_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        objects({**TRIAL, **change})


def test_another_vector_store_needs_no_chroma() -> None:
    values = {**TRIAL, "trial": {"valkey": ON}}
    values["config"] = {"RAG_VECTOR_STORE_URL": "qdrant+http://qdrant.example:6333"}
    (config,) = [o for o in objects(values) if o["kind"] == "ConfigMap"]
    assert "RAG_CHROMA_URL" not in config["data"]
    assert unknown(config["data"]) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"workers": {"replicas": 3}},  # a slip of the pen
        {"worker": {"terminationGracePeriodSeconds": 20}},  # shorter than a drain
        {"autoscaling": {"minWorkers": 0}},  # /readyz would be 503
        {"config": {"RAG_API_TOKEN": "in a config map"}},
        {"config": {"RAG_REDIS_URL": "redis://twice"}},
        {"redis": {"url": "localhost:6379"}},
    ],
)
def test_the_values_schema_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        objects({**TRIAL, **change})
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema({**TRIAL, **change})


# -- our own facts --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("part", PARTS)
def test_commands_and_variables_exist(name: str, part: str) -> None:
    box = container(name, part)
    assert wrong_command(box["args"]) == ""
    assert ("--queues" in box["args"]) == (name == "large" and part == "worker")
    config = one(name, "ConfigMap")["data"]
    assert unknown(config) == set()
    assert all(isinstance(v, str) for v in config.values())
    assert unknown(e["name"] for e in box.get("env", []) if e["name"] != "AWS_REGION") == set()
    assert any(e.get("configMapRef", {}).get("name") == "demo-unjam" for e in box["envFrom"])


def test_the_settings_take_what_the_pods_get(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAG_SECRETS_DIR", str(tmp_path))
    for key, value in one("trial", "Secret")["stringData"].items():
        (tmp_path / key).write_text(value)
    for key, value in one("trial", "ConfigMap")["data"].items():
        if key != "RAG_SECRETS_DIR":
            monkeypatch.setenv(key, value)
    settings = Settings()  # type: ignore[call-arg]
    assert settings.database_url == GIVEN["RAG_DATABASE_URL"]
    assert settings.redis_url == "redis://demo-unjam-valkey:6379/5"
    assert settings.chroma_url == "http://demo-unjam-chroma:8000"
    assert settings.storage_url == "file:///originals"
    assert settings.max_concurrent_jobs == 64
    mounts = {m["name"]: m["mountPath"] for m in container("trial", "worker")["volumeMounts"]}
    assert mounts["secrets"] == one("trial", "ConfigMap")["data"]["RAG_SECRETS_DIR"]
    assert mounts["originals"] == "/originals"


def test_all_workers_together_may_hold_what_they_have_room_for() -> None:
    together = str(40 * LEAST_IN_FLIGHT)
    assert one("large", "ConfigMap")["data"]["RAG_MAX_CONCURRENT_JOBS"] == together
    assert "replicas" not in one("large", "Deployment", "-worker")["spec"]


async def test_probes_ask_what_is_answered_without_a_token(web: Any) -> None:
    box = container("large", "api")
    ports = {p["name"]: p["containerPort"] for p in box["ports"]}
    assert ports == {"http": 8002, "dashboard": 9181}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = box[probe]["httpGet"]
        assert asked["port"] == "http"
        answer = await web.http.get(asked["path"], headers={"Host": "10.244.1.7:8002"})
        assert answer.status_code == 200
    for part in ("worker", "watchdog"):
        box = container("large", part)
        for probe in ("startupProbe", "livenessProbe"):
            assert box[probe]["exec"]["command"] == ["unjam-healthy"]
        (beat,) = [e["value"] for e in box["env"] if e["name"] == "RAG_BEAT_FILE"]
        assert beat.startswith("/tmp/")  # which can be written to
    assert "/usr/local/bin/unjam-healthy" in (DEPLOY / "container" / "Containerfile").read_text()


def test_a_stop_leaves_time_to_drain() -> None:
    for name in VALUES:
        found = dict(pods(name))
        graces = {part: found[part]["terminationGracePeriodSeconds"] for part in PARTS}
        assert graces["worker"] >= WORKER_DRAIN_S + 15
        pause = float(container(name, "api")["lifecycle"]["preStop"]["exec"]["command"][1])
        assert graces["api"] > pause + GRACE_S


def test_no_container_may_do_more_than_it_needs() -> None:
    for name in VALUES:
        for part, pod in pods(name):
            assert pod["automountServiceAccountToken"] is False, part
            assert pod["enableServiceLinks"] is False, part
            assert pod["securityContext"]["runAsNonRoot"] is True, part
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, part
            (box,) = pod["containers"]
            assert box["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, part
            assert "memory" in box["resources"]["limits"], part
            written = {m["mountPath"] for m in box["volumeMounts"]}
            assert {"/data", "/tmp"} <= written, part


def test_a_parsing_child_fits_into_its_worker() -> None:
    megabytes = int(one("trial", "ConfigMap")["data"]["RAG_WORKER_MEMORY_MB"])
    limit = container("trial", "worker")["resources"]["limits"]["memory"]
    assert limit == "3Gi" and megabytes * 2 <= 3 * 1024


def test_secrets_are_in_no_environment() -> None:
    for name in VALUES:
        for part, pod in pods(name):
            text = json.dumps(pod["containers"][0].get("env", []))
            assert not any(word in text for word in ("TOKEN", "KEY", "DATABASE")), part
    for part in PARTS:
        (volume,) = [v for v in dict(pods("large"))[part]["volumes"] if "secret" in v]
        assert volume["secret"]["secretName"] == "unjam-secrets"


def test_keda_asks_the_ledger_under_a_name_that_is_answered() -> None:
    spec = one("large", "ScaledObject", "-worker")["spec"]
    assert spec["scaleTargetRef"]["name"] == "demo-unjam-worker"
    assert spec["advanced"]["scalingModifiers"]["formula"] == "queued + running"
    allowed = one("large", "ConfigMap")["data"]["RAG_ALLOWED_HOSTS"].split(",")
    names = HostNames(Binding("0.0.0.0", 8002, True), allowed)
    assert names.allows("rag.example.com") and not names.allows("evil.example.com")
    ports = one("large", "Service", "-api")["spec"]["ports"]
    for trigger in spec["triggers"]:
        scheme, _, place = trigger["metadata"]["url"].partition("://")
        host, _, path = place.partition("/")
        assert (scheme, path) == ("http", "api/rag/ledger")
        assert names.allows(host)
        assert host == f"demo-unjam-api.rag.svc:{ports[0]['port']}"
        assert trigger["metadata"]["valueLocation"] == trigger["name"]
    secret = one("large", "TriggerAuthentication")["spec"]["secretTargetRef"]
    assert secret == [{"parameter": "token", "name": "unjam-secrets", "key": "RAG_API_TOKEN"}]


async def test_what_keda_and_prometheus_read_is_there(web: Any) -> None:
    ledger = (await web.http.get("/api/rag/ledger")).json()
    for trigger in one("large", "ScaledObject", "-worker")["spec"]["triggers"]:
        assert isinstance(ledger[trigger["metadata"]["valueLocation"]], int)
    (endpoint,) = one("large", "ServiceMonitor")["spec"]["endpoints"]
    assert (await web.http.get(endpoint["path"])).status_code == 200
    assert endpoint["authorization"]["credentials"] == {
        "name": "unjam-secrets",
        "key": "RAG_API_TOKEN",
    }


def test_selectors_meet_their_pods() -> None:
    for name in VALUES:
        labels = {
            o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"].items()
            for o in rendered(name)
            if o["kind"] in ("Deployment", "StatefulSet")
        }
        for found in rendered(name):
            spec = found.get("spec", {})
            wanted = {
                "Service": lambda s: s["selector"],
                "PodDisruptionBudget": lambda s: s["selector"]["matchLabels"],
                "NetworkPolicy": lambda s: s["podSelector"]["matchLabels"],
            }.get(found["kind"])
            if wanted is not None:
                met = [n for n, has in labels.items() if wanted(spec).items() <= has]
                own = found["metadata"]["name"].replace("-dashboard", "-api")
                assert met == [own], found["metadata"]["name"]


def test_only_the_api_is_reached_from_outside() -> None:
    rules = {
        o["metadata"]["labels"]["app.kubernetes.io/component"]: o["spec"]["ingress"]
        for o in rendered("large")
        if o["kind"] == "NetworkPolicy"
    }
    assert rules["worker"] == rules["watchdog"] == []
    api, dashboard = rules["api"]
    assert api["ports"][0]["port"] == 8002 and dashboard["ports"][0]["port"] == 9181
    peers = json.dumps(api["from"])
    assert all(space in peers for space in ("search", "keda", "monitoring"))
    assert dashboard["from"] == LARGE["networkPolicy"]["dashboardFrom"]
    for server in ("valkey", "chroma"):
        (policy,) = [
            o
            for o in rendered("trial")
            if o["kind"] == "NetworkPolicy" and o["metadata"]["name"].endswith(server)
        ]
        assert policy["spec"]["egress"] == [] and policy["spec"]["ingress"][0]["from"]


def test_rules_and_dashboard_are_those_of_the_code() -> None:
    rules = one("large", "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((DEPLOY / "prometheus" / "unjam-rules.yml").read_text("utf-8"))
    assert [r["alert"] for r in rules["groups"][0]["rules"]] == [a.name for a in ALERTS]
    board = one("large", "ConfigMap", "-grafana")
    assert json.loads(board["data"]["unjam.json"]) == json.loads(
        (DEPLOY / "grafana" / "unjam.json").read_text("utf-8")
    )
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(("name", "word"), [("trial", "Tokens"), ("large", "토큰")])
def test_the_notes_speak_the_language_of_the_house(name: str, word: str) -> None:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(VALUES[name], name="demo", namespace="rag")
    (notes,) = [text for path, text in files.items() if path.endswith("NOTES.txt")]
    assert word in notes
    assert ("trial" in notes) == (name == "trial")
    services = {o["metadata"]["name"] for o in rendered(name) if o["kind"] == "Service"}
    assert all(f"service/{s} " in notes for s in services if s.endswith(("-api", "-dashboard")))
