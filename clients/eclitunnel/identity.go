package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

// path returns the path of the config file.
func (s *settings) path() (string, error) {
	if s.Config != "" {
		return s.Config, nil
	}
	path, err := agent.DefaultConfigPath()
	if err != nil {
		return "", usagef("%w; set the file for the enrollment with --config", err)
	}
	return path, nil
}

// identity returns the device to act as and its panel. They come from the config file,
// unless a token is given, as for containers; the file is then not read, because it may
// be of another device. Insecure of what it returns is whether the panel may be without
// encryption.
func (s *settings) identity(a *app) (agent.Config, error) {
	token, err := s.deviceToken(a)
	if err != nil {
		return agent.Config{}, err
	}
	var c agent.Config
	if token == "" {
		path, err := s.path()
		if err != nil {
			return agent.Config{}, err
		}
		if c, err = agent.LoadConfig(path); err != nil {
			return agent.Config{}, err
		}
	} else {
		if c.DeviceID, err = tunnel.DeviceID(token); err != nil {
			return agent.Config{}, usagef("the device token: %w", err)
		}
		c.Token = token
		s.sayWhichDevice(a, c.DeviceID)
	}
	enrolledAt := c.PanelURL // "" for a given token.
	s.applyPanel(&c)
	if !c.Insecure && samePanel(c.PanelURL, enrolledAt) && tunnel.IsInsecure(c.PanelURL) {
		// It was enrolled by a version that did not ask.
		a.warnf("warning: the connection to %s is not encrypted: others on the network can read the device token, and act as this device. "+
			"Give the panel a certificate and enroll at its https address: eclitunnel enroll --renew --panel https://... --user EMAIL\n"+
			"To go on without one, add --insecure.", c.PanelURL)
		c.Insecure = true
	}
	return c, nil
}

// applyPanel has a config follow --panel and --insecure. What was accepted at enrollment
// counts for its panel alone.
func (s *settings) applyPanel(c *agent.Config) {
	if s.Panel != "" && !samePanel(s.Panel, c.PanelURL) {
		c.PanelURL, c.Insecure = s.Panel, false
	}
	c.Insecure = c.Insecure || s.Insecure
}

// samePanel reports whether two addresses of panels are written differently at most.
func samePanel(a, b string) bool {
	x, err := tunnel.ParsePanelURL(a)
	y, otherErr := tunnel.ParsePanelURL(b)
	return err == nil && otherErr == nil && x == y
}

// warnExposed warns if others can read the token and cannot be kept out.
func (s *settings) warnExposed(a *app) {
	path := s.TokenFile
	if token, _ := a.variable("ECLITUNNEL_TOKEN"); path == "" && token == "" {
		path, _ = s.path() // identity has reported the error.
	}
	if exposed := files.Exposure(path); exposed != nil {
		a.warnf("warning: %v", exposed)
	}
}

// sayWhichDevice tells a person on a machine that is enrolled that a token, which may be
// left over in the environment, makes the command act as another device.
func (s *settings) sayWhichDevice(a *app, id uuid.UUID) {
	path, err := s.path()
	if err != nil {
		return
	}
	if enrolled, err := agent.LoadConfig(path); err == nil && enrolled.DeviceID != id {
		a.warnf("Using the device token in %s, of the device %s; this machine is enrolled as %s.",
			source(s.TokenFile, "ECLITUNNEL_TOKEN"), id, deviceLabel(enrolled.Name, enrolled.DeviceID))
	}
}

// source names where secret reads a secret that it finds.
func source(file, variable string) string {
	switch file {
	case "":
		return variable
	case "-":
		return "standard input"
	default:
		return file
	}
}

// deviceToken returns the token from --token-file or the environment, or "".
func (s *settings) deviceToken(a *app) (string, error) {
	return a.secret(s.TokenFile, "ECLITUNNEL_TOKEN")
}

// secret reads a secret from the file, or if that is "" from the environment variable. It
// returns "" if there is neither.
func (a *app) secret(file, variable string) (string, error) {
	var secret string
	var err error
	switch file {
	case "":
		secret, err = a.variable(variable)
	case "-":
		secret, err = readLine("standard input", func(name string) ([]byte, error) { return files.ReadFrom(name, a.stdin) })
	default:
		secret, err = readLine(file, files.ReadSecret)
	}
	if err != nil {
		return "", &usageError{err}
	}
	return strings.TrimSpace(secret), nil
}

// readLine returns the one line that read returns, which must not be empty.
func readLine(name string, read func(string) ([]byte, error)) (string, error) {
	data, err := read(name)
	if err != nil {
		return "", err
	}
	line, err := files.Line(name, data)
	if err == nil && strings.TrimSpace(line) == "" {
		err = fmt.Errorf("%s is empty", name)
	}
	return line, err
}

// client returns a client of a config's panel that sends its token, which may be "".
func (a *app) client(c agent.Config) (*tunnel.Client, error) {
	return a.clientWith(c.PanelURL, c.Insecure, func() string { return c.Token })
}

// clientWith returns a client that sends a token, which may change. Insecure permits a
// panel without encryption.
func (a *app) clientWith(panel string, insecure bool, token func() string) (*tunnel.Client, error) {
	c, err := tunnel.New(tunnel.Options{
		PanelURL:  panel,
		Insecure:  insecure,
		Token:     token,
		UserAgent: "eclitunnel/" + version,
		Wait:      a.wait,
	})
	switch {
	case as[*tunnel.InsecureError](err):
		return nil, usagef("%w; or, on a network that you trust, add --insecure", err)
	case err != nil:
		return nil, &usageError{err}
	}
	return c, nil
}

// device returns the identity and a client with its token. If the enrollment is that of an
// agent which runs for this user as a service, the requests are sent by the agent, and the
// token stays there.
func (s *settings) device(a *app) (agent.Config, *tunnel.Client, error) {
	c, client, err := s.ownDevice(a)
	if err != nil {
		return s.throughAgent(a, err)
	}
	return c, client, nil
}

// ownDevice returns the identity that this user can read, and a client with its token.
func (s *settings) ownDevice(a *app) (agent.Config, *tunnel.Client, error) {
	c, err := s.identity(a)
	if err != nil {
		return agent.Config{}, nil, err
	}
	client, err := a.client(c)
	return c, client, err
}

// localAddress returns the local target of an allocation.
func localAddress(a types.Allocation) string {
	return net.JoinHostPort(a.LocalHost, fmt.Sprint(a.LocalPort))
}

func deviceLabel(name string, id uuid.UUID) string {
	if name == "" {
		return id.String()
	}
	return fmt.Sprintf("%s (%s)", name, id)
}
