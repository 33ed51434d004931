import os
import urllib.request

import pytest

from oscirc_blockstore.errors import UsageError
from oscirc_remote import proxies


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://me:p%40ss@[::1]:8080", "http://me:p%40ss@[::1]:8080"),
        (" NONE ", "none"),
    ],
)
def test_a_proxy_is_written_in_several_ways(text, address):
    assert proxies.parse_proxy(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "https://proxy.example",
        "socks5://me:hidden@proxy.example:1080",
        "http://me:hidden@proxy.example:99999",
        "http://me:hidden@proxy.example:0",
        "http://me:hidden@proxy.example/path",
        "http://me:hidden@proxy.example?query",
        "http://me:hidden@two words",
        "http://me:hidden@proxy.example\n",
        "http://me:hidden@pröxy.example",
        "http://[me:hidden@",
        "x" * 3000,
    ],
)
def test_what_is_no_proxy_is_refused_without_telling_its_password(text):
    if text.endswith("\n"):
        text += "x"
    with pytest.raises(UsageError) as refusal:
        proxies.parse_proxy(text)
    assert "hidden" not in f"{refusal.value} {refusal.value.hint}"
    assert len(str(refusal.value)) < 200


def test_exceptions_are_names_with_commas():
    assert proxies.parse_exceptions(" localhost, .example,,*") == "localhost,.example,*"
    for text in ("two words", "a\nb", "x" * 3000, "ü"):
        with pytest.raises(UsageError):
            proxies.parse_exceptions(text)


@pytest.mark.parametrize(
    ("environment", "own", "used"),
    [
        ({}, False, "http://liked:1"),
        ({"http_proxy": ""}, False, "http://liked:1"),
        ({"http_proxy": "http://said:1"}, False, "http://said:1"),
        ({"HTTP_PROXY": "http://said:1"}, False, "http://said:1"),
        ({"HTTP_PROXY": "http://said:1"}, True, "http://liked:1"),
        ({"http_proxy": "http://said:1"}, True, "http://liked:1"),
    ],
)
def test_the_environment_goes_before_the_file_and_our_own_variable_before_that(environment, own, used, monkeypatch):
    clean(monkeypatch, environment)

    proxies.apply(os.environ, proxies.changes(os.environ, "http://liked:1", "", own=own))
    found = urllib.request.getproxies_environment()
    assert found["http"] == used
    assert found["https"] == "http://liked:1"


def test_none_is_a_direct_way_whatever_others_say(monkeypatch):
    clean(monkeypatch, {"HTTP_PROXY": "http://said:1", "https_proxy": "http://said:1"})

    proxies.apply(os.environ, proxies.changes(os.environ, proxies.DIRECT, "", own=True))
    assert not {"http", "https"} & set(urllib.request.getproxies_environment())


def test_exceptions_stand_behind_those_of_the_environment(monkeypatch):
    clean(monkeypatch, {})

    assert proxies.changes(os.environ, "", ".liked") == {"no_proxy": ".liked"}
    monkeypatch.setenv("NO_PROXY", ".said")
    assert proxies.changes(os.environ, "", ".liked") == {}
    proxies.apply(os.environ, proxies.changes(os.environ, "", ".liked", own=True))
    assert urllib.request.getproxies_environment()["no"] == ".liked"


def clean(monkeypatch, environment):
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.setenv(spelling, "")  # so that it is put back in the end
            monkeypatch.delenv(spelling)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
