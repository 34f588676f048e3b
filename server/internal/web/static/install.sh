#!/bin/sh
# Installs the EcliTunnel agent from the panel that serves this script, enrolls this machine
# there, and has the agent run as a service:
#
#   curl -fsSL @PANEL@/install | sh -s -- [flags of eclitunnel enroll]
#
# As root it installs for the machine, otherwise for you. On a machine that is enrolled it
# replaces the program alone. Nothing is fetched from elsewhere. These variables change it:
#
#   ECLITUNNEL_INSTALL_DIR  where the program goes: /usr/local/bin, or ~/.local/bin for you
#   ECLITUNNEL_NO_SERVICE   if it is 1, no service is installed
set -eu

panel='@PANEL@'
work=
staged=

say() { printf '%s\n' "$*"; }

fail() {
	printf 'install: %s\n' "$*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Nothing half stays, whatever ends the script.
clean() {
	[ -z "$work" ] || rm -rf "$work"
	[ -z "$staged" ] || rm -f "$staged"
}

# platform prints how names of files call this machine, such as linux_armv7.
platform() {
	system=$(uname -s)
	machine=$(uname -m)
	case $system in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) fail "there is no agent for $system; there are ones for Linux, macOS and Windows." ;;
	esac
	case $machine in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	armv7* | armv8l) arch=armv7 ;;
	armv6*) arch=armv6 ;;
	i?86 | x86) arch=386 ;;
	riscv64) arch=riscv64 ;;
	*) fail "there is no agent for the processor $machine on $system." ;;
	esac
	# A shell that Rosetta translates calls the machine by the wrong name.
	if [ "$os" = darwin ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || :)" = 1 ]; then
		arch=arm64
	fi
	printf '%s_%s\n' "$os" "$arch"
}

# fetch NAME downloads a file of the panel into the working directory.
fetch() {
	if have curl; then
		curl -fsSL -o "$work/$1" "$panel/install/$1"
	else
		wget -q -O "$work/$1" "$panel/install/$1"
	fi || fail "$panel/install/$1 cannot be downloaded. Try again, and if it stays, ask who runs the panel."
}

# checksum FILE prints its SHA-256.
checksum() {
	if have sha256sum; then
		sha256sum "$1"
	elif have shasum; then
		shasum -a 256 "$1"
	else
		openssl dgst -sha256 -r "$1"
	fi | cut -d ' ' -f 1
}

check_tools() {
	have curl || have wget || fail "curl or wget is needed to download the agent: install one of them."
	have sha256sum || have shasum || have openssl || fail "sha256sum, shasum or openssl is needed to check the agent: install one of them."
	have tar || fail "tar is needed to unpack the agent: install it."
}

# download leaves the checked program in the working directory.
download() {
	target=$(platform) || exit 1
	fetch SHA256SUMS
	archive=
	while read -r sum name; do
		case $name in
		*/*) ;;
		eclitunnel_*"_$target.tar.gz")
			archive=$name
			break
			;;
		esac
	done <"$work/SHA256SUMS"
	[ -n "$archive" ] || fail "this panel has no agent for $target; ask who runs it, at $panel."
	say "Downloading $archive from $panel"
	fetch "$archive"
	[ "$(checksum "$work/$archive")" = "$sum" ] ||
		fail "the checksum of $archive is wrong, so it is not installed. Try again, and if it stays, tell who runs the panel."
	tar -xzf "$work/$archive" -C "$work" eclitunnel || fail "$archive cannot be unpacked."
}

# place puts the program where the shell finds it: all at once, also over one that runs.
place() {
	mkdir -p "$dir" || fail "the directory $dir cannot be made; ECLITUNNEL_INSTALL_DIR can name another one."
	staged=$dir/.eclitunnel.$$
	{ cp "$work/eclitunnel" "$staged" && chmod 755 "$staged"; } || fail "nothing can be written to $dir; ECLITUNNEL_INSTALL_DIR can name another one."
	version=$("$staged" version) || fail "the agent does not run on this machine, so it is not installed."
	mv -f "$staged" "$program" || fail "$program cannot be replaced."
	staged=
	say "Installed $program: $version"
	case :$PATH: in
	*":$dir:"*) ;;
	*)
		say "Your shell does not look for programs there. Add this line to ~/.profile, and open a new terminal:"
		say "  export PATH=\"$dir:\$PATH\""
		;;
	esac
}

# is_enrolled reports whether this machine is enrolled already, for a command that is not to
# change that.
is_enrolled() {
	for flag in "$@"; do
		case $flag in --force | --renew) return 1 ;; esac
	done
	code=0
	"$program" status >/dev/null 2>&1 </dev/null || code=$?
	[ "$code" != 6 ] # "this machine is not enrolled"
}

# enroll runs eclitunnel enroll. Where the standard input is this script, a password is asked
# for at the terminal, if there is one.
enroll() {
	if [ ! -t 0 ] && [ ! -f "$0" ] && (: </dev/tty) 2>/dev/null; then
		"$program" enroll --panel "$panel" "$@" </dev/tty
	else
		"$program" enroll --panel "$panel" "$@"
	fi
}

# serve has the agent run now and after each start of the machine.
serve() {
	scope=
	[ "$(id -u)" = 0 ] || scope=--user
	if [ "${ECLITUNNEL_NO_SERVICE:-}" = 1 ]; then
		say "Keep the agent running with: $program run"
	elif "$program" service --help >/dev/null 2>&1 && "$program" service install $scope </dev/null && restart; then
		say "The agent runs as a service, now and after each start. It is shown by: $program status"
	else
		say "The agent is not a service of this machine. Keep it running yourself, with: $program run"
	fi
}

# restart starts the service with the program that was just installed.
restart() {
	"$program" service stop $scope </dev/null >/dev/null 2>&1 || :
	"$program" service start $scope </dev/null
}

main() {
	trap clean EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	check_tools
	if [ -n "${ECLITUNNEL_INSTALL_DIR:-}" ]; then
		dir=$ECLITUNNEL_INSTALL_DIR
	elif [ "$(id -u)" = 0 ]; then
		dir=/usr/local/bin
	else
		[ -n "${HOME:-}" ] || fail "HOME is not set, so there is no place for the agent; ECLITUNNEL_INSTALL_DIR can name one."
		dir=$HOME/.local/bin
	fi
	program=$dir/eclitunnel
	work=$(mktemp -d) || fail "no temporary directory can be made."
	download
	place
	if is_enrolled "$@"; then
		say "This machine is enrolled already and stays so. To enroll it anew, add --force."
	else
		enroll "$@" || fail "this machine is not enrolled; the lines above say why. The program stays, so you can go on with: $program enroll --panel $panel"
	fi
	serve
}

# In one line at the end: a part of this script does nothing.
main "$@"
