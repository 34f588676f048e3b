#!/bin/sh
# Runs the EcliTunnel agent beside a game server, in the same container of a game panel such
# as Pterodactyl or Pelican. The server's startup command becomes
#
#   sh with-tunnel.sh COMMAND [ARGUMENTS...]
#
# It fetches the agent from your EcliTunnel panel at the first start, starts it in the
# background, and becomes the command: console, signals and exit code are the game's own.
# The agent ends with the game, and the game starts whatever happens to the agent. The log
# of the agent is .eclitunnel/agent.log. Without a command the script fetches the agent
# alone, which is how the egg installs it.
#
# ECLITUNNEL_PANEL         address of the EcliTunnel panel; without it there is no agent
# ECLITUNNEL_ENROLL_KEY    API key with the scope enrollment
# ECLITUNNEL_TUNNELS       ports to open, such as minecraft=tcp:25565,voice=udp:24454
# ECLITUNNEL_NAME          name of the device on the panel
set -u

# In an installation the server's files are elsewhere.
dir=$PWD
[ $# -gt 0 ] || [ ! -d /mnt/server ] || dir=/mnt/server
dir=${TUNNEL_DIR:-$dir}
panel=${ECLITUNNEL_PANEL:-}
panel=${panel%/}

fail() {
	printf 'with-tunnel: %s\n' "$*" >&2
	exit 1
}

platform() {
	case $(uname -m) in
	x86_64 | amd64) echo linux_amd64 ;;
	aarch64 | arm64) echo linux_arm64 ;;
	armv7* | armv8l) echo linux_armv7 ;;
	armv6*) echo linux_armv6 ;;
	i?86) echo linux_386 ;;
	riscv64) echo linux_riscv64 ;;
	*) fail "there is no agent for the processor $(uname -m)" ;;
	esac
}

# get FILE downloads a file of the panel into the working directory.
get() {
	if command -v curl >/dev/null; then
		curl -fsSL -o "$work/$1" "$panel/install/$1"
	else
		wget -q -O "$work/$1" "$panel/install/$1"
	fi || fail "$panel/install/$1 cannot be downloaded"
}

# fetch puts the agent into the server's directory, after checking its checksum.
fetch() {
	[ -n "$panel" ] || fail "ECLITUNNEL_PANEL is not set"
	target=$(platform) || exit 1
	work=$(mktemp -d) || fail "no temporary directory can be made"
	trap 'rm -rf "$work"' EXIT
	get SHA256SUMS
	sum='' archive=''
	while read -r sum archive; do
		case $archive in
		*/*) ;;
		eclitunnel_*"_$target.tar.gz") break ;;
		esac
		archive=''
	done <"$work/SHA256SUMS"
	[ -n "$archive" ] || fail "$panel has no agent for $target"
	get "$archive"
	echo "$sum  $work/$archive" | sha256sum -c - >/dev/null || fail "the checksum of $archive is wrong"
	tar -xzf "$work/$archive" -C "$work" eclitunnel || fail "$archive cannot be unpacked"
	{ mkdir -p "$dir/.eclitunnel" && chmod 700 "$dir/.eclitunnel" && mv -f "$work/eclitunnel" "$dir/eclitunnel"; } ||
		fail "nothing can be written to $dir"
	echo "Installed $dir/eclitunnel from $panel"
}

# agent runs until the process that becomes the game is gone.
agent() {
	game=$1
	[ -x "$dir/eclitunnel" ] || (fetch) || return
	"$dir/eclitunnel" run --standby --config "$dir/.eclitunnel/config.json" &
	running=$!
	while kill -0 "$game" 2>/dev/null && kill -0 "$running" 2>/dev/null; do
		sleep 1
	done
	kill "$running" 2>/dev/null
	wait "$running"
}

if [ $# = 0 ]; then
	fetch
	exit
fi
if [ -n "$panel" ] && mkdir -p "$dir/.eclitunnel" && chmod 700 "$dir/.eclitunnel"; then
	# A log of one run does not fill the disk.
	agent $$ </dev/null >"$dir/.eclitunnel/agent.log" 2>&1 &
fi
# Nothing that the game runs needs the key.
unset ECLITUNNEL_ENROLL_KEY
exec "$@"
