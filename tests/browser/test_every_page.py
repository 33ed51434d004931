"""Every page in a real browser: nothing fails, nothing comes from elsewhere, nothing is too wide, axe finds nothing grave.

The everyday suite walks all pages in two settings that together have both of everything (JavaScript on and off, light
and dark, a phone and a wide screen); `make test-long` walks the other six.
"""

from urllib.parse import urlsplit

import pytest
from support.places import OneDirectory

from oscirc_server.app import create_app
from tests.unit.server.server_world import make_world

from .browsing import EVERY_SETTING, PHONE, TOO_WIDE, VISITORS, Setting, grave
from .walk import NOT_PAGES, followed, links_of, pages_of, stops, unvisited

EVERYDAY = (Setting(javascript=True, scheme="dark", size=PHONE), Setting(javascript=False, scheme="light"))
SETTINGS = [
    *(pytest.param(setting, False, id=f"{setting.name}-everyday") for setting in EVERYDAY),
    *(pytest.param(setting, True, id=setting.name, marks=pytest.mark.long) for setting in EVERY_SETTING),
]


def test_no_page_of_the_application_is_left_out_of_the_walk(tmp_path):
    world = make_world(tmp_path, place=OneDirectory(tmp_path / "data"))
    with world.open() as installation:
        routes = create_app(installation)._rest.routes.routes
    assert len(pages_of(routes)) >= 20
    assert unvisited(routes, stops("draft")) == []
    assert "/admin/audit" in unvisited(routes, [stop for stop in stops("draft") if "audit" not in stop.path])


@pytest.mark.parametrize(("setting", "axe_sees_all"), SETTINGS)
def test_every_page_is_shown_whole_and_without_an_error(browsing, setting, axe_sees_all):
    wrong = []
    for visitor in VISITORS:
        with browsing.open(setting, visitor) as (page, watch):
            for stop in (each for each in stops(browsing.catalog.draft) if each.visitor == visitor):
                watch.refused = stop.status if stop.status >= 400 else 0
                answer = page.goto(browsing.catalog.url + stop.path, wait_until="load")
                found = [] if answer.status == stop.status else [f"status {answer.status}"]
                found += watch.wrong + [f"too wide: {each}" for each in page.evaluate(TOO_WIDE)]
                found += grave(page) if setting.javascript and (axe_sees_all or stop.is_plain) else []
                watch.wrong.clear()
                wrong += [f"{stop.path} ({visitor or 'nobody'}): {each}" for each in found]
    assert not wrong, "\n".join(wrong)


def test_every_link_leads_somewhere_on_this_server_and_gives_what_it_should(browsing):
    wrong, kinds = [], set()
    for visitor in VISITORS:
        with browsing.context(Setting(javascript=False), visitor) as context:
            mine = [each for each in stops(browsing.catalog.draft) if each.visitor == visitor and each.is_plain]
            links = set().union(
                *(links_of(context.request, browsing.catalog.url, each.path) for each in mine if each.status == 200)
            )
            foreign = {link for link in links if urlsplit(link).netloc != urlsplit(browsing.catalog.url).netloc}
            wrong += [f"another host: {link}" for link in foreign]
            for link in sorted(links - foreign):
                answer, expected = followed(context.request, link)
                given = answer.headers.get("content-type", "").partition(";")[0]
                kinds.add(given)
                if answer.status != 200 or given != expected:
                    wrong.append(f"{link} ({visitor or 'nobody'}): {answer.status}, {given} for {expected}")
    assert not wrong, "\n".join(wrong)
    assert kinds >= {"text/html", "application/json", "application/octet-stream", *NOT_PAGES.values()}
