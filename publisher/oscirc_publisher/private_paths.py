"""Where systems keep what is one machine's own or one person's: patterns of paths, and in a word what stands there.

A component may hold the usual `*` and `?`; `**` stands for any number of components. Paths have no leading `/`. Home
directories are a list of their own, below `root`, `home/*` and whatever `/etc/passwd` names. Kinds are for people.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

HOST_KEY, IDENTITY, SEED, PASSWORD = "host key", "machine identity", "random seed", "password"
HISTORY, KEY, CREDENTIAL, LOG = "history", "key", "credential", "log"
LEASE, CLOUD, MAIL, MEMORY = "network lease", "cloud instance data", "mail", "memory of the machine"

_SYSTEM = {
    HOST_KEY: (
        "etc/ssh/ssh_host_*_key*",
        "etc/dropbear/dropbear_*_host_key",
        "etc/ipsec.secrets",
        "var/lib/tailscale/*",
    ),
    IDENTITY: ("etc/machine-id", "var/lib/dbus/machine-id", "etc/hostid", "var/lib/systemd/credential.secret"),
    SEED: ("var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/seedrng/*", "etc/random-seed"),
    PASSWORD: ("etc/shadow-", "etc/gshadow-", "etc/security/opasswd"),
    CLOUD: ("var/lib/cloud/instances/**", "var/lib/cloud/data/**", "var/lib/cloud/seed/**", "run/cloud-init/**"),
    LEASE: (
        "var/lib/dhcp/*",
        "var/lib/dhclient/*",
        "var/lib/dhcpcd/*",
        "var/lib/NetworkManager/*",
        "var/lib/connman/**",
        "var/lib/systemd/network/**",
    ),
    CREDENTIAL: (
        "etc/NetworkManager/system-connections/*",
        "etc/wpa_supplicant/*.conf",
        "etc/wireguard/*",
        "etc/openvpn/**",
        "etc/ppp/*-secrets",
        "etc/krb5.keytab",
        "etc/ssl/private/*",
        "etc/pki/tls/private/*",
        "etc/letsencrypt/archive/**",
        "etc/letsencrypt/accounts/**",
        "etc/docker/key.json",
        "etc/rancher/**",
        "var/lib/iwd/*",
        "var/lib/samba/private/*",
    ),
    LOG: ("var/log/**", "var/lib/systemd/coredump/*", "var/crash/*", "var/lib/systemd/timesync/*"),
    MAIL: ("var/mail/*", "var/spool/mail/*", "var/spool/postfix/**", "var/spool/exim4/**"),
    MEMORY: ("swapfile", "swap.img", "swap/*", "var/swap", "var/lib/libvirt/qemu/save/*"),
}

_HOME = {
    HISTORY: (".*history", ".*_history", ".lesshst", ".viminfo", ".wget-hsts", ".local/share/fish/fish_history"),
    KEY: (".ssh/*", ".gnupg/private-keys-v1.d/*", ".gnupg/secring.gpg", ".config/age/*", ".local/share/oscirc/keys/*"),
    CREDENTIAL: (
        ".netrc",
        ".pgpass",
        ".my.cnf",
        ".git-credentials",
        ".npmrc",
        ".pypirc",
        ".vault-token",
        ".aws/*",
        ".azure/*",
        ".kube/*",
        ".docker/config.json",
        ".config/gcloud/**",
        ".config/gh/hosts.yml",
        ".config/rclone/rclone.conf",
        ".config/oscirc/**",
        ".config/containers/auth.json",
        ".local/share/keyrings/*",
        ".local/share/oscirc/remotes/**",
        ".password-store/**",
        ".terraform.d/credentials.tfrc.json",
        ".cargo/credentials*",
        ".mozilla/firefox/*/*.sqlite",
        ".mozilla/firefox/*/*.json",
        ".mozilla/firefox/*/key*.db",
        ".config/*/Default/*",
        ".Xauthority",
        ".ICEauthority",
    ),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """What is left of a pattern below a directory, and the kind of what it matches."""

    components: tuple[str, ...]
    kind: str

    def below(self, name: str) -> list[Pattern]:
        """What is left of it below an entry of this name; with no component left, the entry itself is meant."""
        first, rest = self.components[0], self.components[1:]
        if first == "**":
            deeper = [self, Pattern((), self.kind)]
            return deeper + (Pattern(rest, self.kind).below(name) if rest else [])
        return [Pattern(rest, self.kind)] if fnmatch.fnmatchcase(name, first) else []


def patterns(homes: Sequence[str]) -> list[Pattern]:
    """All of them, for a system with these home directories beside the usual ones."""
    named = ("/".join(re.sub(r"([*?[])", r"[\1]", name) for name in home.strip("/").split("/")) for home in homes)
    places = dict.fromkeys(("root", "home/*", *named))
    found = [Pattern(tuple(path.split("/")), kind) for kind, paths in _SYSTEM.items() for path in paths]
    for place in places:
        if place:
            found += [
                Pattern((*place.split("/"), *path.split("/")), kind) for kind, paths in _HOME.items() for path in paths
            ]
    return found
