"""Which paths lead to something private."""

import pytest

from oscirc_publisher import private_paths


def kinds(path, homes=()):
    """The kinds of the patterns that a path matches, walked down as a file system is."""
    left = private_paths.patterns(list(homes))
    names = path.split("/")
    for at, name in enumerate(names):
        left = [rest for pattern in left if pattern.components for rest in pattern.below(name)]
        if at == len(names) - 1:
            return {rest.kind for rest in left if not rest.components}
    return set()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("etc/ssh/ssh_host_ed25519_key", "host key"),
        ("etc/machine-id", "machine identity"),
        ("var/lib/systemd/random-seed", "random seed"),
        ("etc/shadow-", "password"),
        ("root/.bash_history", "history"),
        ("home/alice/.python_history", "history"),
        ("home/alice/.ssh/authorized_keys", "key"),
        ("home/alice/.aws/credentials", "credential"),
        ("root/.netrc", "credential"),
        ("home/alice/.config/gcloud/deep/er/credentials.db", "credential"),
        ("home/alice/.local/share/oscirc/keys/alice.json", "key"),
        ("var/log/apt/history.log", "log"),
        ("var/log/journal/0123/system.journal", "log"),
        ("var/lib/cloud/instances/i-1/user-data.txt", "cloud instance data"),
        ("var/lib/dhcp/dhclient.eth0.leases", "network lease"),
        ("etc/NetworkManager/system-connections/home.nmconnection", "credential"),
        ("swapfile", "memory of the machine"),
    ],
)
def test_what_is_private_by_its_path(path, kind):
    assert kinds(path) == {kind}


@pytest.mark.parametrize(
    "path",
    [
        "etc/hostname",
        "etc/ssh/sshd_config",
        "home/alice/notes",
        "usr/bin/ssh",
        "var/lib/dpkg/status",
        "srv/.netrc",
        "var/log",
    ],
)
def test_what_is_not(path):
    assert kinds(path) == set()


def test_homes_that_accounts_name_are_looked_into_too():
    assert kinds("srv/build/.netrc", ["/srv/build"]) == {"credential"}
    assert kinds("srv/build/.netrc", ["/", "", "/nonexistent"]) == set()


def test_a_home_that_looks_like_a_pattern_is_only_itself():
    assert kinds("srv/x/.netrc", ["/srv/*"]) == set()
    assert kinds("srv/*/.netrc", ["/srv/*"]) == {"credential"}
