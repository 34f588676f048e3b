#!/bin/sh
# Before .deb and .rpm of eclitunnel or eclitunneld are removed or upgraded. It is called with
# "remove" or "upgrade" by dpkg, and with the number of versions that stay by rpm.
set -e

service=@SERVICE@

case $1 in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now "$service.service"
	fi
	;;
esac
