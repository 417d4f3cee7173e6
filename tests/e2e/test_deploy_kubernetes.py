"""The manifests for Kubernetes: valid by its schemas, and consistent; programs accept the configurations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from marketfeed.config.schema import default_text, load
from marketfeed.gateway.hosts import Hosts
from tests.support.nats import PROGRAM
from tests.support.peers import need

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
PASSWORD = "MARKETFEED_NATS_PASSWORD"
# The first with all fields that are used, and the newest that is known.
VERSIONS = ("1.31", kubernetes_validate.latest_version())

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], Manifest]:
    """What `kubectl apply -k` would send, by kind and name."""
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    built = list(yaml.safe_load_all(done.stdout))
    named = {}
    for one in built:
        name = re.sub(r"-config-\w{10}$", "-config", one["metadata"]["name"])  # less the hash of its contents
        named[one["kind"], name] = one
    assert len(named) == len(built) == 11
    return named


def pod_of(stateful_set: Manifest) -> Manifest:
    pod: Manifest = stateful_set["spec"]["template"]["spec"]
    return pod


def expanded(text: str, pod: str) -> str:
    """Return ``text`` with the variable that the container of ``pod`` has."""
    return text.replace("$(POD_NAME)", pod)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_kubernetes_accept_all_manifests(manifests, version):
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)  # raises


def test_a_misspelled_field_is_found(manifests):
    wrong = {**manifests["PodDisruptionBudget", "nats"], "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_all_are_in_one_namespace_and_secrets_are_referred_to_only(manifests):
    assert {one["metadata"]["namespace"] for one in manifests.values()} == {"marketfeed"}
    assert "Secret" not in {kind for kind, _ in manifests}
    for _, stateful_set in stateful_sets(manifests):
        for container in pod_of(stateful_set)["containers"]:
            for variable in container["env"]:
                assert "valueFrom" in variable


def stateful_sets(manifests: dict[tuple[str, str], Manifest]) -> list[tuple[str, Manifest]]:
    return [(name, one) for (kind, name), one in manifests.items() if kind == "StatefulSet"]


def test_references_between_manifests_and_to_documented_secrets_are_right(manifests):
    text = (KUBERNETES / "kustomization.yaml").read_text()
    secrets = set(re.findall(r"secret generic ([a-z-]+)", text))
    configs = {one["metadata"]["name"] for (kind, _), one in manifests.items() if kind == "ConfigMap"}
    assert len(stateful_sets(manifests)) == 2
    for name, one in stateful_sets(manifests):
        labels = one["spec"]["template"]["metadata"]["labels"]
        selectors = [
            one["spec"]["selector"]["matchLabels"],
            manifests["Service", one["spec"]["serviceName"]]["spec"]["selector"],
            manifests["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"],
        ]
        assert all(selector == labels for selector in selectors)
        assert manifests["Service", one["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
        pod = pod_of(one)
        volumes = {volume["name"] for volume in pod["volumes"]} | {"data"}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        found = re.findall(r"'(?:secretName|name)': '([a-z-]*(?:passwords|admin))'", str(pod))
        assert set(found) - {"admin"} <= secrets
        used = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        assert set(used) <= configs
        ports = {port["name"] for port in container["ports"]}
        for service in (one for (kind, _), one in manifests.items() if kind == "Service"):
            if service["spec"]["selector"] == labels:
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_containers_are_confined_and_bounded(manifests):
    for _, one in stateful_sets(manifests):
        pod = pod_of(one)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert {"readinessProbe", "livenessProbe", "startupProbe"} <= container.keys()


@pytest.fixture
def config(manifests, tmp_path) -> Path:
    """The configuration of an engine, with files below ``tmp_path``."""
    text = manifests["ConfigMap", "marketfeed-config"]["data"]["config.toml"]
    (tmp_path / "admin.token").write_text("0123456789abcdef" * 2)
    (tmp_path / "admin.token").chmod(0o440)
    for place in ("/etc/marketfeed-secrets", "/var/lib/marketfeed"):
        text = text.replace(place, str(tmp_path))
    path: Path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def engine_container(manifests: dict[tuple[str, str], Manifest]) -> Manifest:
    container: Manifest = pod_of(manifests["StatefulSet", "marketfeed"])["containers"][0]
    return container


def overrides(manifests: dict[tuple[str, str], Manifest], pod: str) -> list[str]:
    return [
        expanded(argument.removeprefix("--set="), pod)
        for argument in engine_container(manifests)["args"]
        if argument.startswith("--set=")
    ]


def test_the_engine_accepts_its_arguments_and_its_configuration(manifests, config, monkeypatch):
    monkeypatch.setenv(PASSWORD, "p1")
    arguments = [
        expanded(argument, "marketfeed-0").replace("/etc/marketfeed/config.toml", str(config))
        for argument in engine_container(manifests)["args"]
    ]
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments, "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"config ok: {config}")


def test_a_node_is_named_and_reached_as_its_pod(manifests, config):
    loaded = load(config, overrides(manifests, "marketfeed-1"))
    cluster = loaded.config.cluster
    assert cluster is not None
    service = manifests["StatefulSet", "marketfeed"]["spec"]["serviceName"]
    host = f"marketfeed-1.{service}.marketfeed.svc.cluster.local:8765"
    assert (cluster.node, cluster.url) == ("marketfeed-1", f"http://{host}")
    hosts = Hosts(loaded.config.gateway.hosts)
    for name in (host, "marketfeed:8765", "marketfeed.marketfeed:8765", "10.1.2.3:8765"):
        assert hosts.serves(name), name
    assert not hosts.serves("evil.example")
    assert PASSWORD in {variable["name"] for variable in engine_container(manifests)["env"]}


def test_an_engine_has_time_to_drain_after_it_has_left_the_service(manifests, config):
    engine = load(config).config.engine
    pod = pod_of(manifests["StatefulSet", "marketfeed"])
    word, seconds = engine_container(manifests)["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= float(seconds) + 2 * engine.drain_s


def test_probes_ask_the_admin_port(manifests, config):
    container = engine_container(manifests)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    loaded = load(config).config
    assert ports == {"http": loaded.gateway.port, "admin": loaded.admin.port}
    assert f"port = {loaded.admin.port}" in default_text()
    paths = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [(probe["path"], probe["port"]) for probe in paths] == [
        ("/healthz", "admin"), ("/healthz", "admin"), ("/readyz", "admin"),
    ]  # fmt: skip


def test_the_servers_are_those_that_the_configurations_name(manifests, config, tmp_path):
    one = manifests["StatefulSet", "nats"]
    first, count = one["spec"]["ordinals"]["start"], one["spec"]["replicas"]
    pods = [f"nats-{number}" for number in range(first, first + count)]
    cluster = load(config).config.cluster
    assert cluster is not None
    assert cluster.servers == [f"nats://{pod}.nats:4222" for pod in pods]
    assert cluster.replicas == count
    files = manifests["ConfigMap", "nats-config"]["data"]
    assert re.findall(r"nats://([a-z0-9-]+):6222", files["cluster.conf"]) == pods
    assert pod_of(one)["dnsConfig"]["searches"] == ["nats.marketfeed.svc.cluster.local"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    text = (KUBERNETES / "kustomization.yaml").read_text()
    words = re.search(r"for name in ([A-Z ]+); do echo \"--from-literal=(\w+)\$\{name\}(\w+)=", text)
    assert words is not None
    environ = {f"{words[2]}{name}{words[3]}": "p1" for name in words[1].split()}
    done = subprocess.run(
        [PROGRAM, "-t", "-c", tmp_path / "cluster.conf"],
        env={**environ, "NATS_NAME": pods[0]}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_autoscaling_asks_for_metrics_that_the_adapter_has(manifests, tmp_path):
    program = need("promtool")
    scaler = manifests["HorizontalPodAutoscaler", "marketfeed"]["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) in manifests
    assert "replicas" not in manifests["StatefulSet", "marketfeed"]["spec"]
    assert scaler["minReplicas"] == 2
    rules = yaml.safe_load((KUBERNETES / "adapter-rules.yaml").read_text())["rules"]
    asked = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"]]
    assert [rule["name"]["as"] for rule in rules] == asked
    queries = []
    for rule in rules:
        series, _, matchers = rule["seriesQuery"].partition("{")
        assert matchers == 'namespace!="",pod!=""}'
        query = rule["metricsQuery"]
        for field, value in (
            ("Series", series),
            ("LabelMatchers", 'namespace="marketfeed",pod=~"marketfeed-0"'),
            ("GroupBy", "pod"),
        ):
            assert f"<<.{field}>>" in query
            query = query.replace(f"<<.{field}>>", value)
        queries.append({"record": f"check:{rule['name']['as']}", "expr": query})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "check", "rules": queries}]}))
    done = subprocess.run([program, "check", "rules", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_prometheus_accepts_its_configuration_and_adds_the_labels_that_the_adapter_needs(tmp_path):
    program = need("promtool")
    (tmp_path / "admin.token").write_text("x")
    text = (KUBERNETES / "prometheus.yml").read_text().replace("/etc/marketfeed-secrets", str(tmp_path))
    read = yaml.safe_load(text)
    (job,) = read["scrape_configs"]
    # Debian builds its promtool without this discovery.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["marketfeed"]}}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(read))
    (tmp_path / "rules.yml").write_text((DEPLOY / "prometheus" / "rules.yml").read_text())
    done = subprocess.run(
        [program, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    labels = {one.get("target_label") for one in job["relabel_configs"]}
    assert {"namespace", "pod"} <= labels
