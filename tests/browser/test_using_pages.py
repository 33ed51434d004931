"""Pages used as people use them: buttons that copy, forms without JavaScript, everything by keyboard alone."""

import re

import pytest

from .browsing import NOBODY, PASSWORD, PHONE, PUBLISHER, Setting, copied
from .demo_catalog import ADMINISTRATOR

PLAIN = Setting(javascript=False)
# What can be reached by the keyboard: of radio buttons of one name the chosen one, of folded details only the summary.
REACHABLE = """() => [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]
  .filter((each) => !each.disabled && each.checkVisibility({visibilityProperty: true}))
  .filter((each) => each.type !== "radio" || each.checked)
  .map((each) => { each.dataset.walked = "no"; return each.outerHTML.slice(0, 120); })"""
# The focused element is marked; answered is why its focus cannot be seen, if it cannot.
FOCUSED = """() => {
  const focused = document.activeElement;
  if (focused === document.body) return null;
  focused.dataset.walked = "yes";
  const shown = focused.type === "radio" ? focused.labels[0] : focused;
  const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  const inside = box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return outlined && inside ? "" : `outlined: ${outlined}, on the screen: ${inside}: ${focused.outerHTML.slice(0, 120)}`;
}"""
LEFT = """() => [...document.querySelectorAll("[data-walked=no]")].map((each) => each.outerHTML.slice(0, 120))"""
MOST_TABS = 400


@pytest.mark.parametrize("tab", ["oscirc", "qemu", "download"])
def test_the_copy_button_puts_the_printed_command_on_the_clipboard(browsing, tab):
    lines = copied(browsing.browser, f"{browsing.catalog.url}/images/alice/debian", tab)
    assert lines
    if tab == "oscirc":
        remote = browsing.catalog.repository.url
        assert lines[0] == (f"oscirc remote add example-systems '{remote}' && oscirc boot example-systems:alice/debian")


def test_without_the_clipboards_permission_the_command_is_copied_or_at_least_selected(browsing):
    with browsing.open() as (page, watch):
        page.goto(f"{browsing.catalog.url}/images/alice/debian")
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
        page.locator("#panel-oscirc button[data-copy]").first.click()
        page.get_by_text(re.compile("^(Copied|Selected)$")).wait_for()
        assert page.evaluate("getSelection().toString()") == page.text_content("#oscirc-1")
        assert not watch.wrong


def test_without_javascript_there_is_no_button_that_does_nothing(browsing):
    with browsing.open(PLAIN) as (page, _):
        page.goto(f"{browsing.catalog.url}/images/alice/debian")
        assert page.locator("button[data-copy]").count() > 0
        assert page.locator("button[data-copy]:visible").count() == 0
        assert page.locator("#panel-qemu").is_hidden()
        page.click("label[for=way-qemu]")
        assert page.locator("#panel-qemu").is_visible()
        assert page.locator("#panel-oscirc").is_hidden()


def test_without_javascript_the_list_is_filtered_by_a_button_and_widened_by_links(browsing):
    with browsing.open(PLAIN) as (page, watch):
        page.goto(f"{browsing.catalog.url}/")
        every = page.locator(".cards li").count()
        page.check("input[name=family][value=debian]")
        assert page.url == f"{browsing.catalog.url}/"
        with page.expect_navigation():
            page.click("button[type=submit]")
        assert "family=debian" in page.url
        assert 0 < page.locator(".cards li").count() < every
        with page.expect_navigation():
            page.click("a.chip")
        assert page.locator(".cards li").count() == every
        assert not watch.wrong


def test_with_javascript_a_checkbox_filters_at_once(browsing):
    with browsing.open() as (page, watch):
        page.goto(f"{browsing.catalog.url}/")
        with page.expect_navigation():
            page.check("input[name=family][value=debian]")
        assert "family=debian" in page.url
        assert not watch.wrong


def test_without_javascript_two_versions_are_chosen_and_compared(browsing):
    with browsing.open(PLAIN) as (page, watch):
        page.goto(f"{browsing.catalog.url}/images/alice/debian/updates")
        page.select_option("#from", "12.7")
        page.select_option("#to", "12.8")
        with page.expect_navigation():
            page.click("main button[type=submit]")
        assert page.url.endswith("?from=12.7&to=12.8")
        assert "with the delta pack" in page.text_content("main")
        assert page.locator("svg.diskmap").is_visible()
        assert not watch.wrong


def test_without_javascript_who_has_a_wrong_password_is_told_so_and_then_logs_in_and_out(browsing):
    with browsing.open(PLAIN) as (page, watch):
        page.goto(f"{browsing.catalog.url}/account")
        assert page.url.endswith("/login")
        watch.refused = 401
        for password in ("not this one", PASSWORD):
            page.fill("#name", PUBLISHER)
            page.fill("#password", password)
            with page.expect_navigation():
                page.click("main button[type=submit]")
            if password != PASSWORD:
                assert page.locator("[role=alert]").is_visible()
        assert page.url.endswith("/account")
        with page.expect_navigation():
            page.get_by_role("button", name="Log out").click()
        page.goto(f"{browsing.catalog.url}/account")
        assert page.url.endswith("/login")
        assert not watch.wrong


def test_a_form_without_its_key_is_refused_and_changes_nothing(browsing):
    with browsing.open(Setting(), ADMINISTRATOR) as (page, watch):
        page.goto(f"{browsing.catalog.url}/admin/users")
        before = page.locator("main").inner_text()
        watch.refused = 403
        page.evaluate("document.querySelectorAll('[name=form_key]').forEach((each) => each.remove())")
        page.locator("main form button").first.click()
        page.wait_for_load_state()
        assert page.locator("[role=alert]").is_visible()
        page.goto(f"{browsing.catalog.url}/admin/users")
        assert page.locator("main").inner_text() == before
        assert not watch.wrong


@pytest.mark.parametrize(
    ("path", "visitor", "size"),
    [
        ("/", NOBODY, (1440, 900)),
        ("/images/alice/debian", NOBODY, PHONE),
        pytest.param("/images/alice/debian/updates", NOBODY, (1440, 900), marks=pytest.mark.long),
        pytest.param("/account", PUBLISHER, PHONE, marks=pytest.mark.long),
        ("/admin/users", ADMINISTRATOR, (1440, 900)),
    ],
)
def test_everything_is_reached_by_the_keyboard_with_the_focus_in_sight(browsing, path, visitor, size):
    with browsing.open(Setting(size=size), visitor) as (page, watch):
        page.goto(browsing.catalog.url + path)
        expected = page.evaluate(REACHABLE)
        assert len(expected) > 5
        wrong = []
        for _ in range(MOST_TABS):
            page.keyboard.press("Tab")
            said = page.evaluate(FOCUSED)
            if said is None:
                break
            wrong += [said] if said else []
        assert not wrong, "\n".join(wrong)
        assert page.evaluate(LEFT) == []
        assert not watch.wrong


def test_the_first_stop_of_the_keyboard_skips_to_the_content(browsing):
    with browsing.open() as (page, _):
        page.goto(f"{browsing.catalog.url}/images/alice/debian")
        page.keyboard.press("Tab")
        skip = page.locator(".skip")
        assert skip.evaluate("each => each === document.activeElement && each.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('main').contains(document.activeElement)")
        assert not skip.evaluate("each => each.getBoundingClientRect().right > 0")


def test_tabs_are_chosen_by_arrow_keys(browsing):
    with browsing.open() as (page, _):
        page.goto(f"{browsing.catalog.url}/images/alice/debian")
        page.focus("#way-oscirc")
        page.keyboard.press("ArrowRight")
        assert page.locator("#panel-qemu").is_visible()
