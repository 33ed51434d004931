"""How an S3 store is named: the place in the URL, the secrets in the environment or a file, never the other way round."""

import pytest

from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_server.s3_settings import Credentials, parse

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_a_url_names_bucket_prefix_and_endpoint():
    found = parse("s3://images/a/b?endpoint=https://s3.example:9000&region=eu&virtual_hosted=true", KEYS)
    assert (found.bucket, found.prefix, found.endpoint) == ("images", "a/b", "https://s3.example:9000")
    assert (found.region, found.virtual_hosted) == ("eu", True)
    assert found.credentials == Credentials("id", "secret")


def test_what_the_url_leaves_out_comes_from_the_environment():
    environment = {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9000/", "AWS_REGION": "r", "AWS_SESSION_TOKEN": "t"}
    found = parse("s3://images", environment)
    assert (found.prefix, found.endpoint, found.region) == ("", "http://127.0.0.1:9000", "r")
    assert found.credentials == Credentials("id", "secret", "t")
    assert parse("s3://images", KEYS).region == "us-east-1"


def test_at_aws_itself_the_machines_own_role_will_do():
    assert parse("s3://images", {}).credentials is None


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        ("s3://id:secret@images", KEYS, "holds credentials"),
        ("s3://", KEYS, "not the URL of a bucket"),
        ("s3://images:9000/x", KEYS, "not the URL of a bucket"),
        ("s3://[images", KEYS, "cannot read"),
        ("s3://images?secret_access_key=x", KEYS, "no option"),
        ("s3://images?endpoint=ftp://x", KEYS, "endpoint"),
        ("s3://images?virtual_hosted=perhaps", KEYS, "true or false"),
        ("s3://images?endpoint=http://127.0.0.1:9", {}, "no credentials"),
        ("s3://images", {"AWS_ACCESS_KEY_ID": "id"}, "one is missing"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_that_says_why(url, environment, said):
    with pytest.raises(UsageError, match=said) as refused:
        parse(url, environment)
    assert refused.value.hint
    assert "secret_access_key=x" not in str(refused.value)


def test_credentials_may_stand_in_a_file(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n[two]\n"
        "aws_access_key_id = c\naws_secret_access_key = d\naws_session_token = e\n"
    )
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(path)}
    assert parse("s3://x", environment).credentials == Credentials("a", "b%c")
    assert parse("s3://x", {**environment, "AWS_PROFILE": "two"}).credentials == Credentials("c", "d", "e")
    with pytest.raises(UsageError, match="no profile 'three'"):
        parse("s3://x", {**environment, "AWS_PROFILE": "three"})


def test_a_credentials_file_that_cannot_be_read_is_not_quoted(tmp_path):
    path = tmp_path / "credentials"
    path.write_text("a secret without a section\n")
    with pytest.raises(UsageError) as refused:
        parse("s3://x", {"AWS_SHARED_CREDENTIALS_FILE": str(path)})
    assert "a secret" not in str(refused.value)
    with pytest.raises(LocalError, match="cannot read"):
        parse("s3://x", {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "absent")})
