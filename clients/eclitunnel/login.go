package main

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/files"
	"github.com/eclitunnel/eclitunnel/internal/prompt"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// logoutTimeout bounds the end of a session, which expires by itself otherwise.
const logoutTimeout = 5 * time.Second

// apiKeyPrefix is what API keys of a panel begin with.
const apiKeyPrefix = "etk_"

func (cmd *enrollCmd) login(ctx context.Context, a *app, client *tunnel.Client) (types.Login, error) {
	if address, err := mail.ParseAddress(cmd.User); err != nil || address.Address != cmd.User {
		return types.Login{}, usagef("--user: %q is not an email address", cmd.User)
	}
	password, err := a.password(ctx, "Password of "+terminal.Escape(cmd.User)+" on "+client.PanelURL()+": ")
	if err != nil {
		return types.Login{}, err
	}
	login, err := client.Login(ctx, cmd.User, password)
	if tunnel.HasCode(err, types.CodeUnauthorized) {
		err = fmt.Errorf("%w: %w", errLogin, err)
	}
	return login, usageIfInvalid(err)
}

// password asks for a password without echo. Where standard input is no terminal, it
// reads it to its end, which must be one line.
func (a *app) password(ctx context.Context, question string) (string, error) {
	if terminal, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
		return prompt.Secret(ctx, terminal, a.stderr, question)
	}
	password, err := readLine("standard input", func(name string) ([]byte, error) { return files.ReadFrom(name, a.stdin) })
	if err != nil {
		return "", &usageError{err}
	}
	return password, nil
}

// renew gets a new token for the device that this machine is enrolled as, and stores it.
// The one before is invalid from then on.
func (cmd *enrollCmd) renew(ctx context.Context, a *app, s *settings, path string) error {
	c, err := agent.LoadConfig(path)
	if err != nil {
		return err
	}
	s.applyPanel(&c)
	if err := agent.CheckConfigPath(path); err != nil {
		return err
	}
	in, err := cmd.signIn(ctx, a, s, c.PanelURL, c.Insecure)
	if err != nil {
		return err
	}
	defer func() { in.end() }()
	if in.token == "" {
		return usagef("--renew needs --user EMAIL, --session-token-file FILE, or \"eclitunnel login\"")
	}
	client := in.client
	if c.Token, err = client.RegenerateToken(ctx, c.DeviceID); err != nil {
		return in.explain(err)
	}
	c.PanelURL, c.Insecure = client.PanelURL(), tunnel.IsInsecure(client.PanelURL())
	c.Allow, c.AllowPorts = joined(c.Allow, cmd.Allow), joined(c.AllowPorts, cmd.AllowPorts)
	if err = cmd.save(ctx, a, s, c, path); errors.Is(err, errNotStored) {
		cmd.rescue(a, s, c)
	}
	return err
}
