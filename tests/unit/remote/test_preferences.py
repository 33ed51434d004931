import pytest

from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_remote import preferences
from oscirc_remote.amounts import SizeLimit
from oscirc_remote.preferences import Preferences, load


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "config.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def test_without_a_file_everything_has_its_default(tmp_path):
    assert load(tmp_path / "none" / "config.toml", {}) == Preferences()
    assert not Preferences().share_boots


def test_every_key_is_read(write):
    file = write(
        'cache_limit = "20G"\nshare_boots = true\nprofile = "desktop"\nprefetch = false\nfill = true\nfill_rate = "2M/s"\n'
        'proxy = "proxy.example:3128"\nno_proxy = "localhost, .example"\n'
    )
    assert load(file, {}) == Preferences(
        cache_limit=SizeLimit(20 << 30),
        share_boots=True,
        profile="desktop",
        prefetch=False,
        fill=True,
        fill_rate=2 << 20,
        proxy="http://proxy.example:3128",
        no_proxy="localhost,.example",
    )


def test_the_file_stands_below_the_configuration_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    preferences.config_file().parent.mkdir()
    preferences.config_file().write_text('cache_limit = "10%"\n')
    assert preferences.config_file() == tmp_path / "oscirc" / "config.toml"
    assert load().cache_limit == SizeLimit(percent=10.0)


def test_a_plain_number_is_bytes(write):
    assert load(write("cache_limit = 1048576"), {}).cache_limit == SizeLimit(1 << 20)


def test_keys_of_another_version_are_named_and_harmless(write):
    assert load(write("share_boots = true\ncolour = 1\n[cache]\nlimit = 2\n"), {}) == Preferences(
        share_boots=True, unknown=("cache", "colour")
    )


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('share_boots = "yes"', "share_boots"),
        ("prefetch = 1", "prefetch"),
        ('auto_update = "always"', "auto_update"),
        ("auto_update = false", "auto_update"),
        ("cache_limit = true", "cache_limit"),
        ("cache_limit = 1.5", "cache_limit"),
        ('cache_limit = "lots"', "cache_limit"),
        ('fill_rate = "0"', "fill_rate"),
        ("fill_rate = -1", "fill_rate"),
        ('profile = "../boot"', "profile"),
        ("fill = []", "fill"),
        ("[profile]", "profile"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_file_and_key(write, line, key):
    file = write(line)
    with pytest.raises(UsageError) as refusal:
        load(file, {})
    assert f"{file}: {key}" in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize("raw", [b"fill = ", b"\xff", b"fill = true\nfill = true", b"a=" + b"[" * 5000])
def test_a_file_that_is_not_toml_is_refused(write, raw):
    file = write(raw)
    with pytest.raises(UsageError, match="not a TOML file"):
        load(file, {})


def test_a_file_without_end_is_refused(write):
    with pytest.raises(LocalError, match="65536"):
        load(write(b"#" * 70_000), {})


def test_the_environment_overrides_the_file(write):
    file = write('cache_limit = "20G"\nprefetch = true\nfill = true')
    environment = {
        "OSCIRC_CACHE_LIMIT": "5%",
        "OSCIRC_PREFETCH": "off",
        "OSCIRC_FILL": "",
        "OSCIRC_FILL_RATE": "1M",
        "OSCIRC_SHARE_BOOTS": "1",
        "OSCIRC_PROFILE": "build",
    }
    assert load(file, environment) == Preferences(
        cache_limit=SizeLimit(percent=5.0),
        share_boots=True,
        profile="build",
        prefetch=False,
        fill=True,
        fill_rate=1 << 20,
    )


@pytest.mark.parametrize(("variable", "word"), [("OSCIRC_FILL", "maybe"), ("OSCIRC_CACHE_LIMIT", "many")])
def test_a_variable_of_the_wrong_kind_is_named(write, variable, word):
    with pytest.raises(UsageError, match=variable):
        load(write(""), {variable: word})
