package tunnel

import (
	"context"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Account returns the account of the session.
func (c *Client) Account(ctx context.Context, opts ...Option) (types.Account, error) {
	return fetch[types.Account](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetAccount(ctx, e...)
	})
}

// UpdateAccount changes the fields of patch that are not nil and returns the account as it
// is afterwards.
func (c *Client) UpdateAccount(ctx context.Context, patch types.AccountPatch, opts ...Option) (types.Account, error) {
	return fetch[types.Account](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateAccount(ctx, patch, e...)
	})
}

// ChangePassword replaces the password of the session's account. Its other sessions end.
func (c *Client) ChangePassword(ctx context.Context, change types.PasswordChange, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ChangePassword(ctx, change, e...)
	})
}

// SetPassword sets the password of an account with the token of a link that an admin made
// ([Client.CreatePasswordLink]). It needs no session.
func (c *Client) SetPassword(ctx context.Context, set types.PasswordSet, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.SetPassword(ctx, set, e...)
	})
}

// EndSession ends a session of the caller's account.
func (c *Client) EndSession(ctx context.Context, id types.SessionID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.EndAccountSession(ctx, id, e...)
	})
}

// EndOtherSessions ends every session of the caller's account but the client's own, and
// returns how many those were.
func (c *Client) EndOtherSessions(ctx context.Context, opts ...Option) (types.SessionsEnded, error) {
	return fetch[types.SessionsEnded](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.EndOtherSessions(ctx, e...)
	})
}

// AccountQuota returns the limits of the caller's account, each with what is used.
func (c *Client) AccountQuota(ctx context.Context, opts ...Option) (types.Quota, error) {
	return fetch[types.Quota](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetAccountQuota(ctx, e...)
	})
}

// LoginProviders returns how people can log in at the panel. It needs no token.
func (c *Client) LoginProviders(ctx context.Context, opts ...Option) (types.LoginProviders, error) {
	return fetch[types.LoginProviders](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListLoginProviders(ctx, e...)
	})
}

// CreateAPIKey makes a key for a program, and returns it with the key itself, which cannot
// be retrieved later. It needs a session.
func (c *Client) CreateAPIKey(ctx context.Context, key types.APIKeyCreate, opts ...Option) (types.APIKeyCreated, error) {
	return createOnce[types.APIKeyCreated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateAPIKey(ctx, key, e...)
	})
}

// APIKey returns an API key without its secret.
func (c *Client) APIKey(ctx context.Context, id types.APIKeyID, opts ...Option) (types.APIKey, error) {
	return fetch[types.APIKey](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetAPIKey(ctx, id, e...)
	})
}

// UpdateAPIKey renames a key, and returns it without the key itself.
func (c *Client) UpdateAPIKey(ctx context.Context, id types.APIKeyID, patch types.APIKeyPatch, opts ...Option) (types.APIKey, error) {
	return fetch[types.APIKey](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateAPIKey(ctx, id, patch, e...)
	})
}

// DeleteAPIKey revokes a key. It is refused from then on.
func (c *Client) DeleteAPIKey(ctx context.Context, id types.APIKeyID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteAPIKey(ctx, id, e...)
	})
}

// User returns an account. It and the following need an admin's session, or an API key of
// an admin with the scope admin.
func (c *Client) User(ctx context.Context, id types.UserID, opts ...Option) (types.User, error) {
	return fetch[types.User](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetUser(ctx, id, e...)
	})
}

// CreateUser makes an account.
func (c *Client) CreateUser(ctx context.Context, user types.UserCreate, opts ...Option) (types.User, error) {
	return createOnce[types.User](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateUser(ctx, user, e...)
	})
}

// UpdateUser changes the fields of patch that are not nil and returns the account as it is
// afterwards.
func (c *Client) UpdateUser(ctx context.Context, id types.UserID, patch types.UserPatch, opts ...Option) (types.User, error) {
	return fetch[types.User](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateUser(ctx, id, patch, e...)
	})
}

// DeleteUser deletes an account. params says what becomes of its devices.
func (c *Client) DeleteUser(ctx context.Context, id types.UserID, params types.DeleteUserParams, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteUser(ctx, id, &params, e...)
	})
}

// CreatePasswordLink makes a link with which its user sets a password, once.
func (c *Client) CreatePasswordLink(ctx context.Context, id types.UserID, opts ...Option) (types.PasswordLink, error) {
	return createOnce[types.PasswordLink](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreatePasswordLink(ctx, id, e...)
	})
}

// UserQuota returns the limits of an account, each with what is used.
func (c *Client) UserQuota(ctx context.Context, id types.UserID, opts ...Option) (types.Quota, error) {
	return fetch[types.Quota](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetUserQuota(ctx, id, e...)
	})
}

// UpdateUserQuota changes the limits that are given and returns all. One that is null is
// the panel's.
func (c *Client) UpdateUserQuota(ctx context.Context, id types.UserID, limits types.QuotaLimits, opts ...Option) (types.Quota, error) {
	return fetch[types.Quota](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateUserQuota(ctx, id, limits, e...)
	})
}
