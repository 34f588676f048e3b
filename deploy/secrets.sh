#!/bin/sh
# Makes the secrets of a panel and of the Postgres beside it, for compose.yaml and for
# kubernetes/: run it once, in either directory. It needs no program but the shell's
# usual company, and leaves secrets that exist as they are.
#
# usage: secrets.sh [DIRECTORY]    (default: secrets)
set -eu

dir=${1:-secrets}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# make FILE TEXT: containers read the file as other users; the directory's mode protects it.
make() {
	[ ! -s "$dir/$1" ] || return 0
	printf '%s\n' "$2" >"$dir/$1"
	chmod 644 "$dir/$1"
}

mkdir -p "$dir"
chmod 700 "$dir"
make postgres-password "$(random)"
make database-url "postgres://eclitunnel:$(cat "$dir/postgres-password")@postgres/eclitunnel?sslmode=disable"
make admin-password "$(random)"
echo "The secrets are in $dir; the first admin's password is in $dir/admin-password."
