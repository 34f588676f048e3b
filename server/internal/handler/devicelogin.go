package handler

import (
	"context"
	"net/url"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

// StartDeviceLogin starts the login of a program that is to act as a person.
func (a *api) StartDeviceLogin(ctx context.Context, request server.StartDeviceLoginRequestObject) (server.StartDeviceLoginResponseObject, error) {
	started, err := a.enroll.StartLogin(ctx, enroll.LoginStart{
		Client:   request.Body.Client,
		Host:     valueOr(request.Body.Host, ""),
		Platform: valueOr(request.Body.Platform, ""),
		Scopes:   auth.ParseScopes(request.Body.Scopes),
	})
	if err != nil {
		return nil, err
	}
	page, complete := a.devicePage(started.UserCode)
	return server.StartDeviceLogin200JSONResponse(types.DeviceLogin{
		DeviceCode:              started.DeviceCode,
		UserCode:                started.UserCode,
		ExpiresAt:               started.ExpiresAt,
		VerificationURI:         page,
		VerificationURIComplete: complete,
		Interval:                int(enroll.Interval.Seconds()),
	}), nil
}

// devicePage returns the URL of the page on which people enter user codes, and that with one.
func (a *api) devicePage(userCode string) (page, complete string) {
	address := a.publicURL.JoinPath("device")
	filled := *address
	filled.RawQuery = url.Values{"code": {userCode}}.Encode()
	return address.String(), filled.String()
}

// PollDeviceLogin returns the state of a login, and once it is approved its key.
func (a *api) PollDeviceLogin(ctx context.Context, request server.PollDeviceLoginRequestObject) (server.PollDeviceLoginResponseObject, error) {
	status, err := a.enroll.PollLogin(ctx, request.Body.DeviceCode)
	if err != nil {
		return nil, err
	}
	answer := types.DeviceLoginStatus{Approved: status.Approved}
	if status.Approved {
		key, user := toAPIKeyCreated(status.Key, status.Text), toUser(status.User)
		answer.Key, answer.User = &key, &user
	}
	return server.PollDeviceLogin200JSONResponse(answer), nil
}

// GetPendingLogin returns what asks to act as the caller.
func (a *api) GetPendingLogin(ctx context.Context, request server.GetPendingLoginRequestObject) (server.GetPendingLoginResponseObject, error) {
	pending, err := a.enroll.PendingLogin(ctx, request.Params.UserCode)
	if err != nil {
		return nil, err
	}
	return server.GetPendingLogin200JSONResponse(types.PendingLogin{
		UserCode:    pending.UserCode,
		Client:      pending.Client,
		Host:        orNull(pending.Host),
		Platform:    orNull(pending.Platform),
		Scopes:      toScopes(pending.Scopes),
		Address:     orNull(pending.StartedFrom),
		SameNetwork: pending.SameNetwork,
		CreatedAt:   pending.CreatedAt,
		ExpiresAt:   pending.ExpiresAt,
	}), nil
}

// ApproveDeviceLogin makes a key of the caller for a program that asks for one.
func (a *api) ApproveDeviceLogin(ctx context.Context, request server.ApproveDeviceLoginRequestObject) (server.ApproveDeviceLoginResponseObject, error) {
	approval := enroll.LoginApproval{UserCode: request.Body.UserCode, ExpiresAt: request.Body.ExpiresAt}
	if request.Body.Scopes != nil {
		scopes := auth.ParseScopes(*request.Body.Scopes)
		approval.Scopes = &scopes
	}
	key, err := a.enroll.ApproveLogin(ctx, approval)
	if err != nil {
		return nil, err
	}
	return server.ApproveDeviceLogin200JSONResponse(toAPIKey(key)), nil
}

// DenyDeviceLogin ends a pending login.
func (a *api) DenyDeviceLogin(ctx context.Context, request server.DenyDeviceLoginRequestObject) (server.DenyDeviceLoginResponseObject, error) {
	if err := a.enroll.DenyLogin(ctx, request.Body.UserCode); err != nil {
		return nil, err
	}
	return server.DenyDeviceLogin200JSONResponse(types.Success{Success: true}), nil
}

// RevokeDeviceLogin revokes an API key by itself.
func (a *api) RevokeDeviceLogin(ctx context.Context, request server.RevokeDeviceLoginRequestObject) (server.RevokeDeviceLoginResponseObject, error) {
	if err := a.auth.RevokeAPIKey(ctx, request.Body.Key); err != nil {
		return nil, err
	}
	return server.RevokeDeviceLogin200JSONResponse(types.Success{Success: true}), nil
}

func toAPIKeyCreated(row db.APIKey, text string) types.APIKeyCreated {
	key := toAPIKey(row)
	return types.APIKeyCreated{
		ID: key.ID, Name: key.Name, Prefix: key.Prefix, Scopes: key.Scopes,
		UserID: key.UserID, OrganisationID: key.OrganisationID,
		CreatedAt: key.CreatedAt, ExpiresAt: key.ExpiresAt,
		LastUsedAt: key.LastUsedAt, LastUsedFrom: key.LastUsedFrom,
		Key: text,
	}
}

func toScopes(names []string) []types.APIKeyScope {
	scopes := make([]types.APIKeyScope, 0, len(names))
	for _, name := range names {
		scopes = append(scopes, types.APIKeyScope(name))
	}
	return scopes
}
