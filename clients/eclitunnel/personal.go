package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/files"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// personal is a person's login at a panel, as it is stored.
type personal struct {
	PanelURL string `json:"panelUrl"`
	// Insecure means that a person has accepted a PanelURL without encryption.
	Insecure bool                `json:"insecure,omitempty"`
	User     string              `json:"user"` // The email.
	Key      string              `json:"key"`  // Secret.
	KeyName  string              `json:"keyName"`
	Scopes   []types.APIKeyScope `json:"scopes"`
	// ExpiresAt is nil for a key that does not expire.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

// loginPath returns the file of the login at a panel, beside the enrollment: login-panel.example.com.json.
func (s *settings) loginPath(panel string) (string, error) {
	config, err := s.path()
	if err != nil {
		return "", err
	}
	parsed, err := url.Parse(panel)
	if err != nil {
		return "", usagef("the panel's address: %w", err)
	}
	name := parsed.Host + strings.TrimRight(parsed.Path, "/")
	if parsed.Scheme == "http" {
		name = "http-" + name
	}
	// What file systems do not take, as the colon before a port on Windows.
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|%[]`, r) {
			return '_'
		}
		return r
	}, name)
	return filepath.Join(filepath.Dir(config), "login-"+name+".json"), nil
}

// panelToLogIn returns the address of the panel, of --panel or else of the enrollment, and whether it may be without
// encryption.
func (s *settings) panelToLogIn() (panel string, insecure bool, err error) {
	var c agent.Config
	if s.Panel == "" {
		path, err := s.path()
		if err != nil {
			return "", false, err
		}
		if c, err = agent.LoadConfig(path); errors.Is(err, agent.ErrNotEnrolled) {
			return "", false, usagef("the panel's address is missing; set it with --panel")
		} else if err != nil {
			return "", false, err
		}
	}
	s.applyPanel(&c)
	panel, err = tunnel.ParsePanelURL(c.PanelURL)
	if err != nil {
		return "", false, &usageError{err}
	}
	return panel, c.Insecure, nil
}

// loadPersonal reads the login at a panel. It returns errNotLoggedIn if there is none.
func (s *settings) loadPersonal(panel string) (personal, string, error) {
	path, err := s.loginPath(panel)
	if err != nil {
		return personal{}, "", err
	}
	data, err := files.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return personal{}, path, errNotLoggedIn
	}
	if err != nil {
		return personal{}, path, fmt.Errorf("read the login: %w", err)
	}
	var login personal
	if err := json.Unmarshal(data, &login); err != nil {
		return personal{}, path, fmt.Errorf("the login %s is damaged: %w", path, err)
	}
	return login, path, nil
}

func (l personal) save(path string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal the login: %w", err)
	}
	if err := files.Write(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the login: %w", err)
	}
	return nil
}

// loggingIn is what --json prints when a login starts.
type loggingIn struct {
	Status                  string    `json:"status"` // "pending"
	UserCode                string    `json:"userCode"`
	VerificationURI         string    `json:"verificationUri"`
	VerificationURIComplete string    `json:"verificationUriComplete"`
	ExpiresAt               time.Time `json:"expiresAt"`
}

// logIn has a person approve a login by its code (RFC 8628), and returns it. client needs no token.
func (a *app) logIn(ctx context.Context, s *settings, client *tunnel.Client, scopes []types.APIKeyScope) (personal, error) {
	start := types.DeviceLoginStart{Client: "eclitunnel", Scopes: scopes}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	start.Platform = &platform
	if host, err := os.Hostname(); err == nil && host != "" {
		start.Host = &host
	}
	started, err := client.StartDeviceLogin(ctx, start)
	if err != nil {
		return personal{}, err
	}
	if s.JSON {
		err = a.printJSON(loggingIn{"pending", started.UserCode, started.VerificationURI, started.VerificationURIComplete, started.ExpiresAt})
	} else {
		a.printf("To log in to %s, open\n\n    %s\n\nand enter the code\n\n    %s\n", client.PanelURL(), started.VerificationURI, started.UserCode)
		a.printf("or open %s\nThe code is valid until %s. Waiting ...", started.VerificationURIComplete, started.ExpiresAt.Local().Format(time.TimeOnly))
	}
	if err != nil {
		return personal{}, err
	}
	status, err := agent.AwaitLogin(ctx, agent.LoginApproval{
		Client: client,
		Login:  started,
		Wait:   a.wait,
		OnAway: func(err error) { a.warnf("%v; still waiting", err) },
	})
	if tunnel.HasCode(err, types.CodeLoginDenied) {
		err = errLoginDenied
	}
	if err != nil {
		return personal{}, err
	}
	login := personal{
		PanelURL: client.PanelURL(), Insecure: tunnel.IsInsecure(client.PanelURL()), User: status.User.Email,
		Key: status.Key.Key, KeyName: status.Key.Name, Scopes: status.Key.Scopes,
	}
	if expires, err := status.Key.ExpiresAt.Get(); err == nil {
		login.ExpiresAt = &expires
	}
	return login, nil
}

// revoke revokes a key, also after an interrupt.
func revoke(ctx context.Context, client *tunnel.Client, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTimeout)
	defer cancel()
	return client.RevokeDeviceLogin(ctx, key)
}

// expiry says until when a login is valid.
func (l personal) expiry() string {
	if l.ExpiresAt == nil {
		return "it does not expire"
	}
	return "until " + l.ExpiresAt.Local().Format(time.DateTime)
}

func (l personal) scopeNames() string {
	names := make([]string, 0, len(l.Scopes))
	for _, scope := range l.Scopes {
		names = append(names, string(scope))
	}
	return terminal.Escape(strings.Join(names, ", "))
}
