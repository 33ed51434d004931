"""docker-compose.yml without an engine: every reference leads somewhere, every command is one, nothing secret is in it.

That the services work together is tested with the same files by hand: tests/integration/test_front.py and
test_deployment.py.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from . import invocations

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
TOP = {"name", "services", "networks", "volumes", "secrets", "x-oscirc"}
OF_SERVICES = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "env_file", "environment", "healthcheck", "image", "init",
    "logging", "networks", "ports", "profiles", "read_only", "restart", "secrets", "security_opt", "shm_size",
    "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
ONCE = {"bucket"}


def environment_file(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def mounts(service):
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        yield source, target, mode


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_has_only_keys_that_compose_knows(self, name):
        assert set(COMPOSE) <= TOP
        assert set(SERVICES[name]) <= OF_SERVICES

    def test_its_image_is_pinned_by_a_tag_that_names_a_version(self, name):
        _, _, tag = SERVICES[name]["image"].partition(":")
        assert re.search(r"\d+\.\d+", tag), SERVICES[name]["image"]

    def test_every_file_that_it_mounts_is_here_and_every_volume_and_secret_is_declared(self, name):
        for source, target, mode in mounts(SERVICES[name]):
            assert target.startswith("/")
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"], source
            else:
                assert source in COMPOSE["volumes"]
        assert set(SERVICES[name].get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(SERVICES[name]["networks"]) <= set(COMPOSE["networks"])

    def test_it_is_started_again_and_says_how_it_is(self, name):
        service = SERVICES[name]
        assert service["restart"] == ("on-failure" if name in ONCE else "unless-stopped")
        if name not in ONCE:
            health = service["healthcheck"]
            assert health == {"disable": True} if name == "worker" else health["test"][0] == "CMD"

    def test_what_it_waits_for_is_there_and_can_be_what_is_waited_for(self, name):
        for other, how in SERVICES[name].get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS
            assert ("healthcheck" in SERVICES[other]) == (how["condition"] == "service_healthy")
            assert (other in ONCE) == (how["condition"] == "service_completed_successfully")


def test_the_order_has_no_circle():
    done, left = set(), dict(SERVICES)
    while left:
        ready = [name for name, service in left.items() if set(service.get("depends_on", {})) <= done]
        assert ready, left.keys()
        for name in ready:
            done.add(name)
            del left[name]


def test_what_runs_this_program_is_given_commands_that_it_has():
    own = [name for name, service in SERVICES.items() if service["image"].startswith("oscirc-server:")]
    assert own == ["server", "worker"]
    for name in own:
        invocations.check(SERVICES[name]["command"])
    test = SERVICES["server"]["healthcheck"]["test"]
    assert test[:2] == ["CMD", "oscirc"]
    invocations.check(test[2:])


def test_the_steps_in_its_head_are_commands_that_exist(monkeypatch):
    head = (ROOT / "docker-compose.yml").read_text().partition("\nname:")[0]
    text = re.sub(r" \\\n# +", " ", head)
    script = re.search(r"^# +(deploy/\S+) ", text, re.MULTILINE)[1]
    assert os.access(ROOT / script, os.X_OK)
    (run,) = re.findall(r"docker compose run --rm server (.*)", text)
    words = run.split()
    words[words.index("/run/secrets/key_passphrase")] = str(ROOT / "README.md")  # a file that is here
    invocations.check(words)


def test_ports_and_names_are_those_of_nginx_and_of_the_environment():
    given = environment_file("deploy/compose.env")
    http = (ROOT / "deploy/nginx/compose/http.conf").read_text()
    site = (ROOT / "deploy/nginx/compose/site.conf").read_text()
    assert f"server server:{given['OSCIRC_LISTEN'].rpartition(':')[2]} " in http
    assert f"http://127.0.0.1:{given['OSCIRC_LISTEN'].rpartition(':')[2]}" in SERVICES["server"]["healthcheck"]["test"]
    blocks = urlsplit(given["OSCIRC_BLOCKS"])
    endpoint = urlsplit(parse_qs(blocks.query)["endpoint"][0])
    assert endpoint.hostname in SERVICES
    assert f"-s3.port={endpoint.port}" in SERVICES["store"]["command"]
    assert f"server {endpoint.netloc} " in http
    assert f"$oscirc_store_host {endpoint.netloc};" in site
    assert f"$oscirc_bucket {blocks.netloc};" in site
    assert f"s3.bucket.create -name {blocks.netloc}" in SERVICES["bucket"]["command"][0]
    database = urlsplit(given["OSCIRC_DATABASE"])
    assert database.hostname in SERVICES
    assert database.username == SERVICES["database"]["environment"]["POSTGRES_USER"]
    assert database.path[1:] == SERVICES["database"]["environment"]["POSTGRES_DB"]
    assert database.password is None
    published = set(SERVICES["nginx"]["ports"])
    assert published == {f"{port}:{port}" for port in re.findall(r"listen (\d+)", http + site)}
    assert given["FORWARDED_ALLOW_IPS"] == COMPOSE["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    targets = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    assert f"port: {given['OSCIRC_METRICS_LISTEN'].rpartition(':')[2]}" in targets


def test_only_nginx_is_reached_from_outside_and_grafana_from_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"nginx", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published["grafana"])


def test_secrets_are_files_that_are_named_where_they_are_read_and_nowhere_written():
    given = environment_file("deploy/compose.env")
    named = set(re.findall(r"/run/secrets/(\w+)", json.dumps(SERVICES) + json.dumps(given)))
    named |= set(re.findall(r"/run/secrets/(\w+)", (ROOT / "deploy/nginx/compose/site.conf").read_text()))
    assert named | {"key_passphrase"} == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        for key in service.get("environment", {}):
            assert not re.search(r"PASSWORD|SECRET|KEY|TOKEN", key) or key.endswith("_FILE"), key
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text()


@pytest.mark.root
def test_the_script_makes_every_secret_once_and_for_its_reader_alone(tmp_path):
    def make():
        command = [ROOT / "deploy/make-secrets.sh", "images.example.org"]
        environment = {**os.environ, "SECRETS": str(tmp_path / "secrets")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    first = make()
    (tmp_path / "secrets" / "grafana_password").unlink()
    second = make()
    assert set(COMPOSE["secrets"]) == set(first) - {"s3_key"}
    assert {name for name in first if first[name] != second[name]} == {"grafana_password"}
    for path in (tmp_path / "secrets").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    users = {path.name: path.stat().st_uid for path in (tmp_path / "secrets").iterdir()}
    image = (ROOT / "deploy/Dockerfile").read_text()
    server = int(re.search(r"--uid (\d+)", image)[1])
    assert {name for name, user in users.items() if user == server} == set(SERVICES["server"]["secrets"])
    identities = json.loads(first["s3_identities"])["identities"]
    key = identities[0]["credentials"][0]
    assert (
        f"aws_access_key_id = {key['accessKey']}\naws_secret_access_key = {key['secretKey']}\n"
        in first["s3_credentials"]
    )
    assert identities[1] == {"name": "anonymous", "actions": ["Read:oscirc"]}
    assert first["pgpass"].endswith(f":{first['database_password']}")


class TestImage:
    """deploy/Dockerfile."""

    TEXT = (ROOT / "deploy/Dockerfile").read_text()

    def test_its_base_is_pinned_and_it_does_not_run_as_root(self):
        bases = re.findall(r"^FROM (\S+)", self.TEXT, re.MULTILINE)
        assert len(set(bases)) == 1
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
        assert self.TEXT.rindex("USER oscirc") > self.TEXT.rindex("FROM")

    def test_its_commands_are_commands(self):
        entry = json.loads(re.search(r"^ENTRYPOINT (.*)", self.TEXT, re.MULTILINE)[1])
        assert entry == ["oscirc"]
        invocations.check(json.loads(re.search(r"^CMD (.*)", self.TEXT, re.MULTILINE)[1]))
        health = json.loads(re.search(r"^HEALTHCHECK .* CMD (.*)", self.TEXT, re.MULTILINE)[1])
        invocations.check(health[1:])

    def test_it_copies_every_room_and_the_builder_is_sent_nothing_else(self):
        copied = {
            word for line in re.findall(r"^COPY (?!--)(.*) \S+$", self.TEXT, re.MULTILINE) for word in line.split()
        }
        project = (ROOT / "pyproject.toml").read_text()
        rooms = {path.split("/")[0] for path in re.findall(r'^  "(\w+/\w+)",', project, re.MULTILINE)}
        assert copied == rooms | {"pyproject.toml", "README.md"}
        sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert sent == copied
