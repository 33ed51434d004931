#!/usr/bin/env bash
# Everything that the Makefile's targets need on Debian or Ubuntu: system packages and a virtual environment in .venv.
# `deploy/setup.sh` for the demo, `tests` also for the tests in a browser, `debian` also for the stock Debian disk and
# the benchmarks.
# Idempotent: a second run finds everything there and takes a fraction of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  python3-venv python3-dev gcc pkg-config libfuse3-dev fuse3      # Python, and pyfuse3, which is built from source
  qemu-system-x86 qemu-utils ovmf seabios                         # guests, and reading qcow2
  e2fsprogs mtools dosfstools kmod xz-utils zstd                  # the small guest's disk, made without root
  grub-common grub-pc-bin grub-efi-amd64-bin
  faketime util-linux fdisk procps iproute2                       # tests: moved clocks, other users, other networks
  nginx-light                                                     # tests and benchmarks: a repository as static files
  postgresql                                                      # tests: a server of their own, beside any that runs
)
if [[ "${1:-}" == debian ]]; then
  packages+=(mmdebstrap debian-archive-keyring casync qemu-block-extra nbdkit libnbd-bin rclone zsync xdelta3 wrk)
fi
if [[ "${1:-}" == tests ]]; then
  # Ubuntu has Chromium as a snap only, which cannot be driven from here: there the browser's tests are skipped, and say so.
  if grep -qsx 'ID=debian' /etc/os-release; then
    packages+=(chromium)
  elif [[ -z "${OSCIRC_CHROMIUM:-}" ]]; then
    echo "No Chromium from this distribution can be driven by the tests: those in a browser are skipped." >&2
    echo "OSCIRC_CHROMIUM=PATH names one that is no snap." >&2
  fi
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "This set-up knows Debian and Ubuntu only. On another system install the equivalents of:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  echo "then: python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || {
      echo "These packages are missing; run as root: apt-get install ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  echo "Installing ${#missing[@]} system packages: ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The distribution's own Python, since other users of this machine (the tests make one) can run it too.
python=
for candidate in "${PYTHON:-}" /usr/bin/python3 /usr/bin/python3.1[1-9] python3; do
  if [[ -n "$candidate" ]] && "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[[ -n "$python" ]] || { echo "Python 3.11 or newer with its venv module is needed; set PYTHON=…" >&2; exit 1; }

stamp=$(sha256sum pyproject.toml | cut -d' ' -f1)
if [[ "$(cat .venv/.oscirc-setup 2>/dev/null)" != "$stamp" ]]; then
  echo "Making the virtual environment in .venv" >&2
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' 2> >(grep -v '^WARNING' >&2)
  echo "$stamp" >.venv/.oscirc-setup
fi
