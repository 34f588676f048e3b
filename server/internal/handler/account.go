package handler

import (
	"context"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// GetAccount returns the caller's account.
func (a *api) GetAccount(ctx context.Context, _ server.GetAccountRequestObject) (server.GetAccountResponseObject, error) {
	user := *auth.FromContext(ctx).User
	setTag(ctx, accountTag(user))
	return server.GetAccount200JSONResponse(toAccount(user)), nil
}

// UpdateAccount changes the caller's email.
func (a *api) UpdateAccount(ctx context.Context, request server.UpdateAccountRequestObject) (server.UpdateAccountResponseObject, error) {
	user, cookies, err := a.auth.ChangeEmail(ifMatch(ctx, accountTag), request.Body.CurrentPassword, string(request.Body.Email))
	if err != nil {
		return nil, err
	}
	setTag(ctx, accountTag(user))
	return bodyWithCookies{toAccount(user), cookies}, nil
}

// ChangePassword changes the caller's password.
func (a *api) ChangePassword(ctx context.Context, request server.ChangePasswordRequestObject) (server.ChangePasswordResponseObject, error) {
	cookies, err := a.auth.ChangePassword(ctx, request.Body.CurrentPassword, request.Body.NewPassword)
	if err != nil {
		return nil, err
	}
	return onlyCookies(cookies), nil
}

// ListAccountSessions lists the caller's sessions.
func (a *api) ListAccountSessions(ctx context.Context, request server.ListAccountSessionsRequestObject) (server.ListAccountSessionsResponseObject, error) {
	after, err := sessionPosition(request.Params.After)
	if err != nil {
		return nil, err
	}
	wanted, page := page(request.Params.Limit, after)
	rows, err := a.auth.Sessions(ctx, page)
	if err != nil {
		return nil, err
	}
	rows, link := cut(rows, wanted, "/api/account/sessions", func(s db.Session) string {
		return cursor(db.DevicePosition{CreatedAt: s.CreatedAt, ID: s.ID})
	})
	current := auth.FromContext(ctx).Session.ID
	sessions := make([]types.AccountSession, 0, len(rows))
	for _, row := range rows {
		session := toAccountSession(row)
		session.Current = row.ID == current
		sessions = append(sessions, session)
	}
	return server.ListAccountSessions200JSONResponse{Body: sessions, Headers: server.ListAccountSessions200ResponseHeaders{Link: link}}, nil
}

// sessionPosition returns the position that the parameter `after` names, or nil without one.
func sessionPosition(after *string) (*db.SessionPosition, error) {
	if after == nil {
		return nil, nil
	}
	position, ok := parseCursor(*after)
	if !ok {
		return nil, errNoPosition
	}
	return (*db.SessionPosition)(&position), nil
}

// EndAccountSession ends one of the caller's sessions.
func (a *api) EndAccountSession(ctx context.Context, request server.EndAccountSessionRequestObject) (server.EndAccountSessionResponseObject, error) {
	if err := a.auth.EndSession(ctx, request.ID); err != nil {
		return nil, err
	}
	return server.EndAccountSession200JSONResponse(types.Success{Success: true}), nil
}

// EndOtherSessions ends the caller's sessions but that of the request.
func (a *api) EndOtherSessions(ctx context.Context, _ server.EndOtherSessionsRequestObject) (server.EndOtherSessionsResponseObject, error) {
	ended, err := a.auth.EndOtherSessions(ctx)
	if err != nil {
		return nil, err
	}
	return server.EndOtherSessions200JSONResponse(types.SessionsEnded{Ended: ended}), nil
}

func toAccount(user db.User) types.Account {
	return types.Account{
		ID:          user.ID,
		Email:       user.Email,
		Role:        types.Role(user.Role),
		CreatedAt:   user.CreatedAt,
		HasPassword: user.PasswordHash != "",
	}
}

func toAccountSession(row db.Session) types.AccountSession {
	session := types.AccountSession{ID: row.ID, CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, LastUsedAt: row.LastUsedAt}
	if row.Address != "" {
		session.Address = &row.Address
	}
	if row.UserAgent != "" {
		session.UserAgent = &row.UserAgent
	}
	return session
}
