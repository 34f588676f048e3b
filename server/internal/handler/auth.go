package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// Login checks an email and password and creates a session.
func (a *api) Login(ctx context.Context, request server.LoginRequestObject) (server.LoginResponseObject, error) {
	login, err := a.auth.Login(ctx, string(request.Body.Email), request.Body.Password)
	if err != nil {
		return nil, err
	}
	return bodyWithCookies{types.Login{Token: login.Token, User: toUser(login.User)}, login.Cookies()}, nil
}

// bodyWithCookies is a response with a JSON body, such as server.Login200JSONResponse, and
// several cookies, each of which has a header of its own.
type bodyWithCookies struct {
	body    any
	cookies []*http.Cookie
}

// VisitLoginResponse writes the response.
func (b bodyWithCookies) VisitLoginResponse(w http.ResponseWriter) error { return b.write(w) }

// VisitUpdateAccountResponse writes the response.
func (b bodyWithCookies) VisitUpdateAccountResponse(w http.ResponseWriter) error { return b.write(w) }

func (b bodyWithCookies) write(w http.ResponseWriter) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(b.body); err != nil {
		return err
	}
	setCookies(w, b.cookies)
	w.Header().Set("Content-Type", "application/json")
	_, err := body.WriteTo(w)
	return err
}

func setCookies(w http.ResponseWriter, cookies []*http.Cookie) {
	for _, cookie := range cookies {
		http.SetCookie(w, cookie)
	}
}

// Logout ends the caller's session.
func (a *api) Logout(ctx context.Context, _ server.LogoutRequestObject) (server.LogoutResponseObject, error) {
	cookies, err := a.auth.Logout(ctx)
	if err != nil {
		return nil, err
	}
	return onlyCookies(cookies), nil
}

// onlyCookies is a response without a body, such as server.Logout204Response, with several
// cookies.
type onlyCookies []*http.Cookie

// VisitLogoutResponse writes the response.
func (c onlyCookies) VisitLogoutResponse(w http.ResponseWriter) error { return c.write(w) }

// VisitChangePasswordResponse writes the response.
func (c onlyCookies) VisitChangePasswordResponse(w http.ResponseWriter) error { return c.write(w) }

func (c onlyCookies) write(w http.ResponseWriter) error {
	setCookies(w, c)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// GetSession returns the caller's session.
func (a *api) GetSession(ctx context.Context, _ server.GetSessionRequestObject) (server.GetSessionResponseObject, error) {
	caller := auth.FromContext(ctx)
	settings, err := a.db.Settings(ctx)
	if err != nil {
		return nil, err
	}
	return server.GetSession200JSONResponse(types.Session{
		User:          toUser(*caller.User),
		ExpiresAt:     caller.Session.ExpiresAt,
		Features:      toFeatures(settings),
		Enrollment:    toEnrollmentSettings(settings),
		Organisations: toOrganisationSettings(settings),

		AgentDownloads: a.downloads(),
	}), nil
}

func toUser(user db.User) types.User {
	return types.User{
		ID:        user.ID,
		Email:     user.Email,
		Role:      types.Role(user.Role),
		CreatedAt: user.CreatedAt,
		Suspended: user.Suspended,
	}
}
