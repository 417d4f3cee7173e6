"""The files for Docker Compose are valid; what they describe works, with processes in place of containers."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import yaml

from tests.support.admin_client import get
from tests.support.nats_site import Site
from tests.support.nginx import running_nginx
from tests.support.nodes import Watcher
from tests.support.peers import need
from tests.support.ports import free_port
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"
TEXT = (COMPOSE / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
ENGINES = ("engine-1", "engine-2")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What the commands at the top of the file write to .env."""
    commands = re.findall(r"^#   (.*>>? \.env)$", TEXT, re.MULTILINE)
    assert len(commands) == 2
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True, timeout=60)
    lines = (tmp_path / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def config(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The configuration of the engines, its files below ``tmp_path``, its password in the environment."""
    (tmp_path / "admin_token").write_text(environ["MARKETFEED_ADMIN_TOKEN"])
    (tmp_path / "admin_token").chmod(0o600)
    monkeypatch.setenv("MARKETFEED_NATS_PASSWORD", environ["NATS_INGEST_PASSWORD"])
    text = (COMPOSE / "engine.toml").read_text()
    return text.replace("/run/secrets", str(tmp_path)).replace("/var/lib/marketfeed", str(tmp_path))


def test_the_schema_of_compose_accepts_the_file():
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE / "docker-compose.yml"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_variables_have_all_secrets_and_ports_are_on_loopback(environ):
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if SECRET.search(name)
    ]
    assert len(secrets) == 14
    for value in secrets:
        assert re.fullmatch(r"\$\{[A-Z_]+:\?\}", value)
    asked = {found[1] for found in re.finditer(r"\$\{([A-Z_]+)|environment: ([A-Z_]+)\}", TEXT) if found[1]}
    assert asked | {"MARKETFEED_ADMIN_TOKEN"} == environ.keys()
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_all_mounted_files_exist_and_volumes_are_declared():
    volumes = yaml.safe_load(TEXT)["volumes"]
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source, _, rest = mount.partition(":")
            if source.startswith("."):
                assert (COMPOSE / source).resolve().exists(), mount
                assert rest.endswith(":ro"), mount
            else:
                assert source in volumes, mount
    build = SERVICES["engine-1"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).exists()


def test_the_servers_have_the_names_that_the_configurations_name():
    names = {name for name in SERVICES if name.startswith("nats")}
    for name in names:
        assert SERVICES[name]["environment"]["NATS_NAME"] == name
    for text, port in (
        ((DEPLOY / "nats" / "cluster.conf").read_text(), 6222),
        ((COMPOSE / "engine.toml").read_text(), 4222),
    ):
        assert set(re.findall(rf"nats://([a-z0-9-]+):{port}", text)) == names
    for text, port in (
        ((COMPOSE / "nginx.conf").read_text(), 8765),
        ((COMPOSE / "prometheus.yml").read_text(), 8766),
    ):
        assert set(re.findall(rf"([a-z0-9-]+):{port}", text)) == set(ENGINES)


def test_engines_have_an_address_of_the_trusted_network_a_name_and_time_to_stop():
    ((subnet,),) = ([one["subnet"] for one in yaml.safe_load(TEXT)["networks"]["default"]["ipam"]["config"]],)
    text = (COMPOSE / "engine.toml").read_text()
    assert f'trusted_proxies = ["{subnet}"]' in text
    drain = re.search(r"^drain_s = ([\d.]+)", text, re.MULTILINE)
    assert drain is not None
    for name in ENGINES:
        service = SERVICES[name]
        assert service["hostname"] == name
        assert ip_address(service["networks"]["default"]["ipv4_address"]) in ip_network(subnet)
        assert int(service["stop_grace_period"].removesuffix("s")) > 2 * float(drain[1])
        assert "cluster" in service["build"]["args"]["EXTRAS"].split(",")


def test_the_dockerfile_installs_the_extras_that_it_is_given():
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert re.search(r"^ARG EXTRAS=zstd$", text, re.MULTILINE)
    assert 'pip install --no-cache-dir ".[$EXTRAS]"' in text


def test_the_engine_accepts_its_configuration(config, tmp_path):
    (tmp_path / "config.toml").write_text(config)
    command = [sys.executable, "-m", "marketfeed", *SERVICES["engine-1"]["command"], "--check"]
    place = [str(tmp_path / "config.toml") if word.endswith(".toml") else word for word in command]
    done = subprocess.run(place, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_prometheus_accepts_its_configuration(config, tmp_path):
    program = need("promtool")
    text = (COMPOSE / "prometheus.yml").read_text().replace("/run/secrets", str(tmp_path))
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "rules.yml").write_text((DEPLOY / "prometheus" / "rules.yml").read_text())
    done = subprocess.run(
        [program, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def directives(path: Path) -> set[str]:
    lines = (re.sub(r"\s+", " ", line.partition("#")[0]).strip() for line in path.read_text().splitlines())
    return {line for line in lines if line}


def test_nginx_has_the_directives_of_the_shipped_one_but_for_tls_and_times():
    shipped, here = directives(DEPLOY / "nginx.conf"), directives(COMPOSE / "nginx.conf")
    assert here - shipped == {
        "least_conn;",
        *(f"server {name}:8765 max_fails=1 fail_timeout=1s;" for name in ENGINES),
        "proxy_connect_timeout 2s;",
    }
    missing = {line.split()[0] for line in shipped - here}
    assert missing == {
        "listen", "server_name", "return", "server", "proxy_connect_timeout",
        "ssl_certificate", "ssl_certificate_key", "ssl_protocols",
    }  # fmt: skip


@pytest.fixture
def servers(tmp_path: Path, environ: dict[str, str]) -> Iterator[Site]:
    """The three NATS servers."""
    site = Site("cluster.conf", ["nats-1", "nats-2", "nats-3"], tmp_path, passwords=environ)
    try:
        site.wait_until_ready()
        yield site
    finally:
        site.close()


@pytest.mark.slow
async def test_a_client_behind_nginx_misses_nothing_when_the_origin_is_ended(
    servers, config, environ, tmp_path, nursery
):
    text = config.replace("172.28.5.0/24", "127.0.0.1")
    # So few that the rings have them all, however long a busy machine takes to reconnect.
    text = text.replace("symbols = 100", 'symbols = ["A", "B"]').replace("rate = 1000", "rate = 100")
    for number, url in enumerate(servers.urls, 1):
        text = text.replace(f"nats://nats-{number}:4222", url)
    ports = dict(zip(ENGINES, (free_port(), free_port()), strict=True))
    proxy = (COMPOSE / "nginx.conf").read_text()
    here = free_port()
    for what, instead in (
        ("listen 80;", f"listen 127.0.0.1:{here};"),
        *((f"{name}:8765", f"127.0.0.1:{port}") for name, port in ports.items()),
    ):
        assert what in proxy
        proxy = proxy.replace(what, instead)
    hosts = ("--set", "gateway.host=127.0.0.1", "--set", "admin.host=127.0.0.1")
    folders = {name: tmp_path / name for name in ENGINES}
    for folder in folders.values():
        folder.mkdir()

    def node(name: str) -> Any:
        own = shlex.split(f"--set cluster.node={name} --set gateway.port={ports[name]}")
        own_files = text.replace(str(tmp_path / "latency"), str(folders[name] / "latency")).replace(
            str(tmp_path / "access"), str(folders[name] / "access")
        )
        return engine(own_files, folders[name], *hosts, *own)

    with node("engine-1") as first, node("engine-2") as second, running_nginx(proxy, here, tmp_path):
        bearer = {"Authorization": f"Bearer {environ['MARKETFEED_ADMIN_TOKEN']}"}
        for running in (first, second):
            assert get(running.admin_port, "/metrics")[0] == 401
            assert get(running.admin_port, "/metrics", headers=bearer)[0] == 200
        watchers = [Watcher(here) for _ in range(4)]  # least_conn: two on each
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for watcher in watchers:
            await watcher.more(100)
        assert await trio.to_thread.run_sync(first.stop) == 0
        for watcher in watchers:
            await watcher.more(200)
            watcher.check()
            assert (watcher.resets(), len(watcher.epochs())) == (0, 1), watcher
        nursery.cancel_scope.cancel()
