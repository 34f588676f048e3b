package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// maxNamed is the maximum number of tunnel servers that a warning names.
const maxNamed = 5

// warnings returns what an admin should change in the settings with which the panel
// was started, or around it.
func (s *Server) warnings(ctx context.Context) ([]types.SettingsWarning, error) {
	warnings := []types.SettingsWarning{}
	if s.publicURLUnset() {
		warnings = append(warnings, types.SettingsWarning{
			Code: types.WarningPublicURLUnset,
			Message: "--public-url is not set: approval links, agents and players are sent to " + s.url.String() + ", an address " +
				"that may mean nothing on other machines, or whose port they do not reach. Set it to the URL at which they reach this panel.",
		})
	}
	warnings = append(warnings, s.certificateWarnings()...)
	sharing, err := s.sharing(ctx)
	if err != nil {
		return nil, err
	}
	if len(sharing) > 0 {
		warnings = append(warnings, types.SettingsWarning{
			Code: types.WarningSharedHost,
			Message: fmt.Sprintf("Players enter at the panel's own host %s, on: %s. Browsers send cookies to every port of a host, "+
				"so whoever has a public port there could be sent an admin's session. Give players a host of another name: "+
				"with --public-host, or for a stand-alone tunnel server in its settings.", s.url.Hostname(), named(sharing)),
		})
	}
	return warnings, nil
}

// sharing returns the names of the tunnel servers at which players enter by the panel's own
// host. It returns none for a panel that only its own machine reaches.
func (s *Server) sharing(ctx context.Context) ([]string, error) {
	own := netaddr.Canonical(s.url.Hostname())
	if netaddr.IsLoopbackHost(own) {
		return nil, nil
	}
	hosts, err := s.db.PublicHosts(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, host := range hosts {
		if netaddr.Canonical(host.PublicHost) == own {
			names = append(names, host.Name)
		}
	}
	return names, nil
}

func named(servers []string) string {
	if more := len(servers) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(servers[:maxNamed], ", "), more)
	}
	return strings.Join(servers, ", ")
}

// warnSharedHost logs that players enter at the panel's own host.
func (s *Server) warnSharedHost(ctx context.Context) {
	sharing, err := s.sharing(ctx)
	switch {
	case err != nil:
		s.logger.WarnContext(ctx, "public hosts not compared with the panel's own", slog.Any("error", err))
	case len(sharing) > 0:
		s.logger.WarnContext(ctx, "players enter at the panel's own host, and browsers send cookies to every port of a host: "+
			"whoever has a public port could be sent an admin's session; give players a host of another name with --public-host",
			slog.String("host", s.url.Hostname()), slog.String("tunnelServers", named(sharing)))
	}
}
