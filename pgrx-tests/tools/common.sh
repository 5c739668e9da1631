# Sourced by the scripts beside it: where things are. Nothing here changes the machine.
set -euo pipefail
umask 022 # the servers run as another user, who must be able to read what root unpacks

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$tools/../.." && pwd)
. "$tools/versions"

[ -x "$(command -v cargo)" ] || PATH="$HOME/.cargo/bin:$PATH"
export PATH="$root/target/tools/bin:$PATH"
export CARGO_TARGET_DIR="$root/target"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The unprivileged user a server runs as: ourselves, or nobody when we are root (PostgreSQL refuses root).
as_server_user() {
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}

# The folder that holds the private servers. Under target/, unless the server's user could not reach it
# there (a clone in /root, say).
servers_dir() {
  if [ -n "${TRANSMUTE_SERVERS:-}" ]; then
    echo "$TRANSMUTE_SERVERS"
  elif as_server_user test -x "$root" && as_server_user test -r "$root/Cargo.toml"; then
    echo "$root/target/servers"
  else
    echo "/var/tmp/transmute-servers-$(printf %s "$root" | sha256sum | cut -c1-12)"
  fi
}

# pgrx finds the headers of version $1 through a folder of its own with one line in it, so that adding a version never
# makes cargo rebuild the bindings of another one, and ~/.pgrx is left alone.
pgrx_home() { echo "$root/target/pgrx/$1"; }

pin_of() {
  local name="POSTGRESQL_$1"
  [ -n "${!name:-}" ] || die "no PostgreSQL $1 in $tools/versions"
  echo "${!name}"
}
