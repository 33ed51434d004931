import pytest

from oscirc_blockstore.errors import UsageError
from oscirc_remote.amounts import SizeLimit, parse_limit, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        ("512B", 512),
        ("20G", 20 << 30),
        ("20GiB", 20 << 30),
        ("20 gib", 20 << 30),
        ("20GB", 20_000_000_000),
        ("1.5k", 1536),
        (" 1T ", 1 << 40),
    ],
)
def test_a_size_is_a_number_and_a_unit(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "0", "0.0001", "1e9", "nan", "20GG", "20 % ", "1.2.3", "٣", "9999999T"]
)
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(UsageError) as refusal:
        parse_size(text)
    assert refusal.value.hint


def test_a_rate_may_say_per_second():
    assert parse_rate("2M/s") == parse_rate("2M") == 2 << 20


def test_a_limit_is_a_size_or_a_share_of_the_disk():
    assert parse_limit("20G").of(1 << 50) == 20 << 30
    assert parse_limit("12.5 %").of(1000) == 125
    assert parse_limit("100%") == SizeLimit(percent=100.0)
    assert [str(parse_limit(text)) for text in ("1K", "12.5%")] == ["1024", "12.5%"]


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "%", "5%%"])
def test_a_share_beyond_the_disk_is_refused(text):
    with pytest.raises(UsageError):
        parse_limit(text)
