#!/bin/sh
# After .deb and .rpm of eclitunnel or eclitunneld are removed. The enrollment and the
# panel's data in /var/lib stay, unless dpkg is to purge them.
set -e

service=@SERVICE@

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	rm -rf "/var/lib/$service"
fi
