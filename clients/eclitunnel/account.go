package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

// whoIs is what --json prints of a login.
type whoIs struct {
	Status    string              `json:"status"` // "logged_in"
	PanelURL  string              `json:"panelUrl"`
	User      string              `json:"user"`
	KeyName   string              `json:"keyName"`
	Scopes    []types.APIKeyScope `json:"scopes"`
	ExpiresAt *time.Time          `json:"expiresAt"`
}

func (l personal) shown() whoIs {
	return whoIs{"logged_in", l.PanelURL, l.User, l.KeyName, l.Scopes, l.ExpiresAt}
}

type loginCmd struct {
	Admin bool `env:"-" help:"Ask for an admin's rights too, as to enroll tunnel servers, which only an admin of the panel can give (default: false)."`
}

// Help describes the command.
func (*loginCmd) Help() string {
	return `Prints a code, waits until a person has entered it on the panel, and stores an API key of that person in a file beside the enrollment that only this user can read. The person decides what the key may do and until when, and can revoke it on the panel. "enroll" uses it where no other login is given.`
}

// Run implements the command.
func (cmd *loginCmd) Run(ctx context.Context, a *app, s *settings) error {
	panel, insecure, err := s.panelToLogIn()
	if err != nil {
		return err
	}
	old, path, err := s.loadPersonal(panel)
	if err != nil && !errors.Is(err, errNotLoggedIn) {
		return err
	}
	// If the file could not be written later, the key would be lost.
	if err := files.Prove(path, 4<<10); err != nil {
		return fmt.Errorf("write the login: %w", err)
	}
	client, err := a.clientWith(panel, insecure, func() string { return "" })
	if err != nil {
		return err
	}
	defer client.Close()
	scopes := []types.APIKeyScope{types.ScopeRead, types.ScopeDevices, types.ScopeAllocations, types.ScopeEnrollment}
	if cmd.Admin {
		scopes = append(scopes, types.ScopeAdmin)
	}
	login, err := a.logIn(ctx, s, client, scopes)
	if err != nil {
		return err
	}
	if err := login.save(path); err != nil {
		// Nobody else has it.
		return errors.Join(err, revoke(ctx, client, login.Key))
	}
	if old.Key != "" {
		if err := revoke(ctx, client, old.Key); err != nil {
			a.warnf("warning: the earlier login could not be ended: %v\nRevoke its key, %s, on the panel.", err, old.KeyName)
		}
	}
	if exposed := files.Exposure(path); exposed != nil {
		a.warnf("warning: %v", exposed)
	}
	if s.JSON {
		return a.printJSON(login.shown())
	}
	a.printf("\nLogged in as %s, %s. The key is stored in %s.", login.User, login.expiry(), path)
	return nil
}

type logoutCmd struct{}

// Help describes the command.
func (*logoutCmd) Help() string {
	return `Revokes the key of the login at the panel, and removes it from this machine. The enrollment of the machine stays.`
}

// Run implements the command.
func (*logoutCmd) Run(ctx context.Context, a *app, s *settings) error {
	panel, insecure, err := s.panelToLogIn()
	if err != nil {
		return err
	}
	login, path, err := s.loadPersonal(panel)
	if err != nil {
		return err
	}
	client, err := a.clientWith(panel, insecure || login.Insecure, func() string { return "" })
	if err != nil {
		return err
	}
	defer client.Close()
	if err := revoke(ctx, client, login.Key); err != nil {
		return fmt.Errorf("revoke the key: %w", err)
	}
	if err := files.Remove(path); err != nil {
		return fmt.Errorf("remove the login: %w", err)
	}
	if s.JSON {
		return a.printJSON(map[string]string{"status": "logged_out", "panelUrl": panel})
	}
	a.printf("%s is logged out of %s.", login.User, panel)
	return nil
}

type whoamiCmd struct{}

// Run implements the command.
func (*whoamiCmd) Run(ctx context.Context, a *app, s *settings) error {
	panel, insecure, err := s.panelToLogIn()
	if err != nil {
		return err
	}
	login, _, err := s.loadPersonal(panel)
	if err != nil {
		return err
	}
	client, err := a.clientWith(panel, insecure || login.Insecure, func() string { return login.Key })
	if err != nil {
		return err
	}
	defer client.Close()
	// A key without the scope is one that is valid.
	limit := 1
	for _, err := range client.EachOrganisation(ctx, types.ListOrganisationsParams{Limit: &limit}) {
		if tunnel.HasCode(err, types.CodeUnauthorized) {
			return loginEnded(panel, err)
		}
		if err != nil && !tunnel.HasCode(err, types.CodeForbidden) {
			return err
		}
		break
	}
	if s.JSON {
		return a.printJSON(login.shown())
	}
	a.printf("panel   %s", panel)
	a.printf("user    %s", login.User)
	a.printf("key     %s, %s", login.KeyName, login.expiry())
	a.printf("may     %s", login.scopeNames())
	return nil
}

// loginEnded is the error for a login whose key the panel does not accept.
func loginEnded(panel string, err error) error {
	return fmt.Errorf("%w at %s: %w", errLoginEnded, panel, err)
}
