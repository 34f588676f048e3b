package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// session is what a machine is enrolled with.
type session struct {
	client *tunnel.Client
	token  string // "" if there is none. An API key can stand in its place.
	// personal means that the token is the key of "eclitunnel login", of the person who enrolls the machine.
	personal bool
	// end, which the caller must call, closes the client and ends what was begun for the enrollment alone.
	end func()
}

// signIn returns the session to enroll with: of --user, who logs in, a given one, or else the login at the panel.
func (cmd *enrollCmd) signIn(ctx context.Context, a *app, s *settings, panel string, insecure bool) (*session, error) {
	token, err := a.secret(cmd.SessionTokenFile, "ECLITUNNEL_SESSION_TOKEN")
	if err != nil {
		return nil, err
	}
	in := &session{token: token}
	switch {
	case cmd.User == "" && token != "":
		what := "user of the session"
		if strings.HasPrefix(token, apiKeyPrefix) {
			what = "owner of the API key"
		}
		a.warnf("Acting as the %s in %s.", what, source(cmd.SessionTokenFile, "ECLITUNNEL_SESSION_TOKEN"))
	case cmd.User != "" && cmd.SessionTokenFile != "":
		return nil, usagef("--user and --session-token-file exclude each other")
	case cmd.User != "":
		in.token = "" // The command line takes precedence over the environment.
	default:
		if err := in.useLogin(a, s, panel); err != nil {
			return nil, err
		}
	}
	in.client, err = a.clientWith(panel, insecure, func() string { return in.token })
	if err != nil {
		return nil, err
	}
	in.end = func() { in.client.Close() }
	if cmd.User == "" {
		return in, nil
	}
	login, err := cmd.login(ctx, a, in.client)
	if err != nil {
		in.client.Close()
		return nil, err
	}
	in.token = login.Token
	in.end = func() {
		// After an interrupt as well.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTimeout)
		defer cancel()
		_ = in.client.Logout(ctx)
		in.client.Close()
	}
	return in, nil
}

// useLogin has the session act as the person who is logged in to the panel, if somebody is.
func (in *session) useLogin(a *app, s *settings, panel string) error {
	panel, err := tunnel.ParsePanelURL(panel)
	if err != nil {
		return &usageError{err}
	}
	login, _, err := s.loadPersonal(panel)
	if errors.Is(err, errNotLoggedIn) {
		return nil
	}
	if err != nil {
		return err
	}
	in.token, in.personal = login.Key, true
	a.warnf("Acting as %s, who is logged in to %s.", login.User, panel)
	return nil
}

// logInToEnroll has a person log in for this enrollment alone. The key is revoked at its end, and so is stored nowhere.
func (in *session) logInToEnroll(ctx context.Context, a *app, s *settings, kind string) error {
	scopes := []types.APIKeyScope{types.ScopeEnrollment}
	if kind == string(types.DeviceKindServer) {
		scopes = append(scopes, types.ScopeAdmin)
	}
	login, err := a.logIn(ctx, s, in.client, scopes)
	if err != nil {
		return err
	}
	in.token, in.personal = login.Key, true
	in.end = func() {
		if err := revoke(ctx, in.client, login.Key); err != nil {
			a.warnf("warning: the login could not be ended: %v\nRevoke its key, %s, on the panel.", err, login.KeyName)
		}
		in.client.Close()
	}
	return nil
}

// explain returns an error of a request of the session, and says of a login that it has ended.
func (in *session) explain(err error) error {
	if in.personal && tunnel.HasCode(err, types.CodeUnauthorized) {
		return loginEnded(in.client.PanelURL(), err)
	}
	return err
}

// start starts the enrollment. If the panel requires a session for it and there is none, a person logs in.
func (cmd *enrollCmd) start(ctx context.Context, a *app, s *settings, in *session, start types.EnrollmentStart) (types.Enrollment, error) {
	enrollment, err := startEnrollment(ctx, in.client, start)
	if in.token == "" && tunnel.HasCode(err, types.CodeUnauthorized) {
		if failed := in.logInToEnroll(ctx, a, s, cmd.Kind); code(types.CodeNotFound, types.CodeUnauthorized)(failed) {
			// A panel of an earlier version has no such logins.
			return enrollment, fmt.Errorf("%w: %w", errNeedsSession, err)
		} else if failed != nil {
			return enrollment, failed
		}
		enrollment, err = startEnrollment(ctx, in.client, start)
	}
	if err = in.explain(err); tunnel.HasCode(err, types.CodeUnauthorized) && !in.personal {
		err = fmt.Errorf("%w: %w", errNeedsSession, err)
	}
	return enrollment, usageIfInvalid(err)
}

// approve approves the enrollment as the person who is logged in, and reports whether they may.
func (in *session) approve(ctx context.Context, userCode string) bool {
	if !in.personal {
		return false
	}
	_, err := in.client.Approve(ctx, types.DeviceApproval{UserCode: userCode})
	return err == nil
}
