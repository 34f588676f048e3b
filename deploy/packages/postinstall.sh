#!/bin/sh
# After .deb and .rpm of eclitunnel or eclitunneld are unpacked. It is called with "configure"
# and the old version by dpkg, and with the number of installed versions by rpm.
set -e

service=@SERVICE@

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers "/usr/lib/sysusers.d/$service.conf"
	install -d -m 700 -o "$service" -g "$service" "/var/lib/$service"
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# An upgrade takes effect at once. What does not run stays so.
	systemctl try-restart "$service.service"
fi

case $1:$2 in
configure: | 1:) ;;
*) exit 0 ;;
esac
case $service in
eclitunnel)
	cat <<-'EOF'
		Enroll this machine, then start the agent:
		  sudo -u eclitunnel ECLITUNNEL_CONFIG=/var/lib/eclitunnel/config.json eclitunnel enroll --panel https://panel.example.com
		  sudo systemctl enable --now eclitunnel
	EOF
	;;
eclitunneld)
	cat <<-'EOF'
		Set the panel's URL in /etc/eclitunnel/eclitunneld.env, then start the panel:
		  sudo systemctl enable --now eclitunneld
	EOF
	;;
esac
