package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

type enrollCmd struct {
	Name             string   `help:"Name of this machine on the panel (default: the host name)."`
	Allow            []string `placeholder:"HOST[:PORTS]" help:"Local host that the agent may reach in addition to this machine: a name, an IP address or a prefix, with all its ports, or one or a range such as game.lan:2456-2458. Repeatable."`
	AllowPorts       []string `placeholder:"PORTS" help:"Ports of this machine that the agent may reach, such as 25565,2456-2458 (default: all)."`
	Kind             string   `env:"-" enum:"client,server" default:"client" help:"client for the agent beside a game, server for a public machine that accepts players, which needs the login of an admin (default: client)."`
	PublicHost       string   `placeholder:"HOST" help:"Tunnel server: host name or IP address at which players and agents reach it (default: the address that the panel sees, as it changes)."`
	PortRange        string   `placeholder:"FIRST-LAST" help:"Tunnel server: public ports for allocations that request no particular one (default: the panel's)."`
	Region           string   `help:"Tunnel server: its location, shown to people."`
	Organisation     int64    `env:"-" placeholder:"ID" help:"Enroll for this organisation; needs a login, as its owner or admin."`
	User             string   `env:"-" placeholder:"EMAIL" help:"Log in as this user to enroll: prompts for the password, or reads it from standard input."`
	SessionTokenFile string   `placeholder:"FILE" help:"Enroll as the user of this session, or as the owner of this API key, which needs the scope enrollment, and admin for a tunnel server; - for standard input; also from $$ECLITUNNEL_SESSION_TOKEN."`
	Tag              string   `env:"-" placeholder:"TAG" help:"Random value from the web page that shows this command, by which that page finds this machine to have it approved: 22 letters, digits, - or _."`
	Force            bool     `env:"-" help:"Replace an existing enrollment; without --panel, at the same panel."`
	Renew            bool     `env:"-" help:"Get a new token for the device that this machine is enrolled as, in place of the present one. Needs --user, or a session or an API key of its owner or an admin."`
}

func (*enrollCmd) Help() string {
	return `Prints a code, waits until it has been approved on the panel, by an admin or, where its settings permit it, by who will own this machine, and stores the device token in a file that only this user can read.

Where "eclitunnel login" has been run, or the panel requires a login and asks for one here, the person who is logged in approves the machine at once if they may.

With --token-file it installs that token instead, for example one that was regenerated on the panel. With --renew it keeps the device, its ports and its settings, and gets a new token for it.`
}

// enrolling is what --json prints when the enrollment starts.
type enrolling struct {
	Status                  string    `json:"status"` // "pending"
	UserCode                string    `json:"userCode"`
	VerificationURI         string    `json:"verificationUri"`
	VerificationURIComplete string    `json:"verificationUriComplete"`
	ExpiresAt               time.Time `json:"expiresAt"`
}

// enrolled is what --json prints when the enrollment is complete.
type enrolled struct {
	Status   string    `json:"status"` // "enrolled"
	DeviceID uuid.UUID `json:"deviceId"`
	Name     string    `json:"name"`
	PanelURL string    `json:"panelUrl"`
	Config   string    `json:"config"`
	// Server is nil for a tunnel client, and if the panel did not answer once more.
	Server *types.TunnelServer `json:"server,omitempty"`
}

// Run implements the command.
func (cmd *enrollCmd) Run(ctx context.Context, a *app, s *settings) error {
	path, err := s.path()
	if err != nil {
		return err
	}
	if _, err := agent.ParseAllowList(cmd.Allow, cmd.AllowPorts); err != nil {
		return &usageError{err}
	}
	if cmd.Renew {
		return cmd.renew(ctx, a, s, path)
	}
	if s.TokenFile != "" {
		return cmd.install(ctx, a, s, path)
	}
	old, err := agent.LoadConfig(path)
	switch {
	case errors.Is(err, agent.ErrNotEnrolled):
	case cmd.Force:
		// The device may have been deleted at the panel that it belongs to.
		if err == nil {
			s.applyPanel(&old)
			s.Panel, s.Insecure = old.PanelURL, old.Insecure
		}
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w as %s with %s", errAlreadyEnrolled, deviceLabel(old.Name, old.DeviceID), old.PanelURL)
	}
	if s.Panel == "" {
		return usagef("the panel's address is missing; set it with --panel")
	}
	// If the file could not be written later, the token would be lost.
	if err := agent.CheckConfigPath(path); err != nil {
		return err
	}
	c, err := cmd.enroll(ctx, a, s)
	if err != nil {
		return err
	}
	if err = cmd.save(ctx, a, s, c, path); errors.Is(err, errNotStored) {
		cmd.rescue(a, s, c)
	}
	return err
}

// rescue keeps the token of an enrollment that could not be stored, and prints how to go
// on: the approval must not be lost.
func (cmd *enrollCmd) rescue(a *app, s *settings, c agent.Config) {
	a.warnf("The machine is approved as %s.", deviceLabel(c.Name, c.DeviceID))
	file, err := os.CreateTemp("", "eclitunnel-token-*") // Readable by this user only.
	if err == nil {
		_, err = file.WriteString(c.Token + "\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		if file != nil {
			_ = os.Remove(file.Name())
		}
		a.warnf("Its token could not be kept elsewhere either: %v\nHave another one made through the panel's API, "+
			"POST /api/tunnel/devices/%s/regenerate-token, and install it with: eclitunnel enroll --token-file FILE%s",
			err, c.DeviceID, cmd.again(s, c))
		return
	}
	a.warnf("Its token is in %s. Once the enrollment can be stored, install the token and remove that file:\n"+
		"eclitunnel enroll --token-file %s%s", file.Name(), files.Quote(file.Name()), cmd.again(s, c))
}

// again returns the flags with which the token of c is installed as this command would
// have done.
func (cmd *enrollCmd) again(s *settings, c agent.Config) string {
	var flags strings.Builder
	flags.WriteString(" --panel " + files.Quote(c.PanelURL))
	if c.Insecure {
		flags.WriteString(" --insecure")
	}
	if s.Config != "" {
		flags.WriteString(" --config " + files.Quote(s.Config))
	}
	for _, host := range c.Allow {
		flags.WriteString(" --allow " + files.Quote(host))
	}
	if len(c.AllowPorts) > 0 {
		flags.WriteString(" --allow-ports " + files.Quote(strings.Join(c.AllowPorts, ",")))
	}
	if cmd.Force {
		flags.WriteString(" --force")
	}
	return flags.String()
}

// enroll enrolls this machine by the device authorization grant (RFC 8628).
func (cmd *enrollCmd) enroll(ctx context.Context, a *app, s *settings) (agent.Config, error) {
	in, err := cmd.signIn(ctx, a, s, s.Panel, s.Insecure)
	if err != nil {
		return agent.Config{}, err
	}
	defer func() { in.end() }()
	client := in.client
	kind := types.DeviceKind(cmd.Kind)
	start := types.EnrollmentStart{Name: cmd.Name, Kind: &kind}
	if start.Server, err = cmd.serverSettings(); err != nil {
		return agent.Config{}, err
	}
	if start.Name == "" {
		if start.Name, err = os.Hostname(); err != nil {
			return agent.Config{}, usagef("cannot get the host name: %w; set a name with --name", err)
		}
	}
	if cmd.Tag != "" {
		if !tagPattern.MatchString(cmd.Tag) {
			return agent.Config{}, usagef("--tag: %q is not 22 letters, digits, - or _; copy it from the page again", cmd.Tag)
		}
		start.Tag = &cmd.Tag
	}
	if cmd.Organisation != 0 {
		start.OrganisationID = &cmd.Organisation
	}
	enrollment, err := cmd.start(ctx, a, s, in, start)
	if err != nil {
		return agent.Config{}, err
	}
	if !in.approve(ctx, enrollment.UserCode) {
		if err := a.showCode(s, client.PanelURL(), enrollment); err != nil {
			return agent.Config{}, err
		}
	}
	token, err := agent.AwaitApproval(ctx, agent.Approval{
		Client:     client,
		Enrollment: enrollment,
		Wait:       a.wait,
		OnAway:     func(err error) { a.warnf("%v; still waiting", err) },
	})
	if tunnel.HasCode(err, types.CodeEnrollmentDenied) {
		err = errDenied
	}
	if err != nil {
		return agent.Config{}, err
	}
	id, err := tunnel.DeviceID(token)
	if err != nil {
		return agent.Config{}, fmt.Errorf("the panel's token: %w", err)
	}
	return agent.Config{
		PanelURL: client.PanelURL(), DeviceID: id, Name: start.Name, Token: token,
		Insecure: tunnel.IsInsecure(client.PanelURL()), Allow: cmd.Allow, AllowPorts: cmd.AllowPorts, Owner: a.owner(),
	}, nil
}

// tagPattern is the contract's of a tag.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)

// startEnrollment starts an enrollment, and tells who will approve it what runs here.
func startEnrollment(ctx context.Context, client *tunnel.Client, start types.EnrollmentStart) (types.Enrollment, error) {
	platform, agentVersion := runtime.GOOS+"/"+runtime.GOARCH, version
	start.Platform, start.AgentVersion = &platform, &agentVersion
	enrollment, err := client.StartEnrollment(ctx, start)
	var refusal *tunnel.Error
	if !errors.As(err, &refusal) {
		return enrollment, err
	}
	names := func(fields ...string) bool {
		return slices.ContainsFunc(refusal.Details, func(d types.ErrorDetail) bool {
			return slices.Contains(fields, d.Field)
		})
	}
	switch {
	case names("platform", "agentVersion"):
		// A panel of an earlier version knows no such fields, and no tags.
		start.Platform, start.AgentVersion, start.Tag = nil, nil, nil
	case names("tag"): // Nor do some know tags alone.
		start.Tag = nil
	default:
		return enrollment, err
	}
	return client.StartEnrollment(ctx, start)
}

// serverSettings returns the settings of a tunnel server, or nil if there are none. They
// do not apply to a client, which may share its environment variables with a server.
func (cmd *enrollCmd) serverSettings() (*types.TunnelServerSettings, error) {
	var settings types.TunnelServerSettings
	if cmd.Kind != string(types.DeviceKindServer) {
		return nil, nil
	}
	if cmd.PublicHost != "" {
		settings.PublicHost = &cmd.PublicHost
	}
	if cmd.PortRange != "" {
		first, last, _ := strings.Cut(cmd.PortRange, "-")
		settings.PortRange = new(types.PortRange)
		var err1, err2 error
		settings.PortRange.First, err1 = strconv.Atoi(first)
		settings.PortRange.Last, err2 = strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			return nil, usagef("--port-range: %q is not FIRST-LAST", cmd.PortRange)
		}
	}
	if cmd.Region != "" {
		settings.Region = &cmd.Region
	}
	if settings == (types.TunnelServerSettings{}) {
		return nil, nil
	}
	return &settings, nil
}

func (a *app) showCode(s *settings, panel string, e types.Enrollment) error {
	if s.JSON {
		return a.printJSON(enrolling{"pending", e.UserCode, e.VerificationURI, e.VerificationURIComplete, e.ExpiresAt})
	}
	a.printf("This machine must be approved at %s. Open\n\n    %s\n\nand enter the code\n\n    %s\n",
		panel, e.VerificationURI, e.UserCode)
	a.printf("or open %s\nThe code is valid until %s. Waiting ...", e.VerificationURIComplete, e.ExpiresAt.Local().Format(time.TimeOnly))
	return nil
}

// install stores a token that was issued by the panel, after checking with the panel
// that it is valid.
func (cmd *enrollCmd) install(ctx context.Context, a *app, s *settings, path string) error {
	token, err := s.deviceToken(a)
	if err != nil {
		return err
	}
	id, err := tunnel.DeviceID(token)
	if err != nil {
		return usagef("the device token: %w", err)
	}
	c := agent.Config{
		PanelURL: s.Panel, Insecure: s.Insecure, DeviceID: id, Token: token,
		Allow: cmd.Allow, AllowPorts: cmd.AllowPorts, Owner: a.owner(),
	}
	old, err := agent.LoadConfig(path)
	if err == nil && old.DeviceID == id {
		// A new token for the same device keeps the rest of the configuration.
		s.applyPanel(&old)
		c.PanelURL, c.Insecure = old.PanelURL, old.Insecure
		c.Allow, c.AllowPorts = joined(old.Allow, cmd.Allow), joined(old.AllowPorts, cmd.AllowPorts)
	} else if !cmd.Force && !errors.Is(err, agent.ErrNotEnrolled) {
		if err != nil {
			return err
		}
		return fmt.Errorf("%w as %s, and the token is for another device", errAlreadyEnrolled, deviceLabel(old.Name, old.DeviceID))
	}
	client, err := a.client(c)
	if err != nil {
		return err
	}
	defer client.Close()
	device, err := client.Device(ctx, id)
	if err != nil {
		return err
	}
	c.PanelURL, c.Name = client.PanelURL(), device.Name
	c.Insecure = tunnel.IsInsecure(c.PanelURL)
	return cmd.save(ctx, a, s, c, path)
}

// joined returns the entries of a list, and those others that it does not have.
func joined(entries, others []string) []string {
	others = slices.DeleteFunc(others, func(entry string) bool { return slices.Contains(entries, entry) })
	return append(entries, others...)
}

func (cmd *enrollCmd) save(ctx context.Context, a *app, s *settings, c agent.Config, path string) error {
	if err := c.Save(path); err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	// The agent must not refuse later what was accepted here.
	if _, err := agent.LoadConfig(path); err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	if exposed := files.Exposure(path); exposed != nil {
		a.warnf("warning: %v", exposed)
	}
	server := a.tunnelServer(ctx, c)
	if server != nil {
		a.warnHost(*server)
	}
	if s.JSON {
		return a.printJSON(enrolled{"enrolled", c.DeviceID, c.Name, c.PanelURL, path, server})
	}
	a.printf("\nEnrolled as %s. The enrollment is stored in %s.", deviceLabel(c.Name, c.DeviceID), path)
	if server != nil {
		a.printf("Players and agents reach it at %s.", hostLine(server.PublicHost, server.PublicHostGuessed))
	}
	a.printf("Start the agent with: eclitunnel run. A service starts with the machine: eclitunnel service install")
	return nil
}

// hostLimit bounds the request for the public host, on which nothing depends.
const hostLimit = 5 * time.Second

// tunnelServer returns what the panel has about the tunnel server that is enrolled as c.
// It returns nil for a tunnel client, and if the panel does not say.
func (a *app) tunnelServer(ctx context.Context, c agent.Config) *types.TunnelServer {
	if kind, err := tunnel.DeviceKind(c.Token); err != nil || kind != types.DeviceKindServer {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hostLimit)
	defer cancel()
	client, err := a.client(c)
	if err != nil {
		return nil
	}
	defer client.Close()
	device, err := client.Device(ctx, c.DeviceID)
	if err != nil {
		return nil
	}
	server, err := device.Server.Get()
	if err != nil {
		return nil
	}
	return &server
}
