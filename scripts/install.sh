#!/bin/bash
# Installs what the tests run beside Go: a C compiler for the race detector, a
# browser, Redis, and the web servers that the front stands behind. Does
# nothing if they are there. Fails, and says what to do, if they cannot be had:
# no test is ever left out for want of them.
set -euo pipefail

die() {
	echo "install: $*" >&2
	exit 1
}

command -v go >/dev/null || die "go is not in PATH; see https://go.dev/doc/install"

# missing prints the Debian packages that are needed and not there.
missing() {
	# A compiler without the C library's headers is none.
	echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || echo build-essential
	command -v git >/dev/null || echo git
	command -v chromium >/dev/null || echo chromium
	command -v redis-server >/dev/null || echo redis-server
	# Debian has the servers' programs in no PATH, or in root's alone.
	command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
	PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null || echo mariadb-server-core
	command -v nginx >/dev/null || echo nginx
	command -v caddy >/dev/null || echo caddy
}

mapfile -t packages < <(missing)
((${#packages[@]} > 0)) || exit 0
echo "installing: ${packages[*]}"

command -v apt-get >/dev/null || die "no apt-get here; install by other means: ${packages[*]}"
as_root=()
if ((EUID != 0)); then
	command -v sudo >/dev/null || die "neither root nor sudo; install by other means: ${packages[*]}"
	as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$log" 2>&1 || {
		cat "$log" >&2
		die "apt-get $1 failed"
	}
}
apt update
apt install -y --no-install-recommends "${packages[@]}"

mapfile -t packages < <(missing)
((${#packages[@]} == 0)) || die "still missing after installation: ${packages[*]}"
