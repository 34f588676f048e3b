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
	return loginResponse{
		body:    types.Login{Token: login.Token, User: toUser(login.User)},
		cookies: []*http.Cookie{login.Cookie, login.Browser},
	}, nil
}

// loginResponse is server.Login200JSONResponse with two cookies, each of which has a
// header of its own.
type loginResponse struct {
	body    types.Login
	cookies []*http.Cookie
}

// VisitLoginResponse writes the response.
func (l loginResponse) VisitLoginResponse(w http.ResponseWriter) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(l.body); err != nil {
		return err
	}
	setCookies(w, l.cookies)
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
	cookie, err := a.auth.Logout(ctx)
	if err != nil {
		return nil, err
	}
	return server.Logout204Response{Headers: server.Logout204ResponseHeaders{SetCookie: cookie.String()}}, nil
}

// GetSession returns the caller's session.
func (a *api) GetSession(ctx context.Context, _ server.GetSessionRequestObject) (server.GetSessionResponseObject, error) {
	caller := auth.FromContext(ctx)
	return server.GetSession200JSONResponse(types.Session{
		User:      toUser(*caller.User),
		ExpiresAt: caller.Session.ExpiresAt,
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
