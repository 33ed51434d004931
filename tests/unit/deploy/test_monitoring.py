"""The dashboard and the alerts ask only for what a server exports, with labels that it has; and the paper names all of it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.places import OneDirectory

from oscirc_server.metrics import Metrics
from oscirc_server.metrics_of_state import StateCollector
from oscirc_server.services import jobs
from tests.unit.server.conftest import alice, api, http, installation, no_upkeep, template, world  # noqa: F401  # fixtures
from tests.unit.server.server_world import block

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/oscirc-server.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PROMETHEUS_OWN = {"up": {"job", "instance"}}
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.fixture(scope="session")
def new_place():
    """What is exported does not depend on where a repository stands."""
    return OneDirectory


@pytest.fixture
def exported(installation, api, alice):  # noqa: F811
    """Every metric that a server shows, with its labels: after a publication, with a job waiting."""
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    with installation.database.write() as session:
        jobs.note(session, "alice", ["debian"], installation.now_s())
    metrics = Metrics()
    metrics.began()
    metrics.answered("/blocks", "GET", 200, 0.01, 1, 1)
    metrics.registry.register(StateCollector(installation))
    found = dict(PROMETHEUS_OWN)
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    return found


def test_every_expression_asks_for_what_there_is(exported):
    for title, expression in EXPRESSIONS:
        names = set(re.findall(r"\b(?:oscirc_\w+|up)\b", expression))
        assert names, title
        assert names <= set(exported), (title, names - set(exported))
        for name, chosen in re.findall(r"\b(oscirc_\w+|up)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*=~?", chosen)) <= exported[name], (title, chosen)
        labels = set().union(*(exported[name] for name in names))
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(re.findall(r"\w+", grouped)) <= labels, (title, grouped)
        assert expression.count("(") == expression.count(")"), title


def test_every_metric_of_the_server_is_on_the_page_that_explains_them(exported):
    page = (ROOT / "docs/operating.md").read_text()
    shown = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in exported} - {"up"}
    told = set(re.findall(r"^\| `(oscirc_server_\w+)`", page, re.MULTILINE))
    assert told == shown


def test_alerts_say_how_bad_it_is_and_what_to_do():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "waits."))


def test_panels_do_not_overlap_and_name_the_source_that_is_provided():
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    taken = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
