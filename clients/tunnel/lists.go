package tunnel

import (
	"context"
	"iter"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// EachDevice returns the devices that the caller manages or sees, newest first, page by page.
// params filters them; params.Limit is the size of a page.
func (c *Client) EachDevice(ctx context.Context, params types.ListDevicesParams) iter.Seq2[types.Device, error] {
	return each[types.Device](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListDevices(ctx, &params, e...)
	})
}

// EachAllocation returns the allocations that the caller manages or sees, newest first, page
// by page. params filters them; params.Limit is the size of a page.
func (c *Client) EachAllocation(ctx context.Context, params types.ListAllocationsParams) iter.Seq2[types.Allocation, error] {
	return each[types.Allocation](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListAllocations(ctx, &params, e...)
	})
}

// EachAccountSession returns the sessions of the caller's account, page by page.
func (c *Client) EachAccountSession(ctx context.Context, params types.ListAccountSessionsParams) iter.Seq2[types.AccountSession, error] {
	return each[types.AccountSession](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListAccountSessions(ctx, &params, e...)
	})
}

// EachUser returns the accounts of the panel, page by page. It needs an admin's session.
func (c *Client) EachUser(ctx context.Context, params types.ListUsersParams) iter.Seq2[types.User, error] {
	return each[types.User](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListUsers(ctx, &params, e...)
	})
}

// EachOrganisation returns the organisations that the caller is a member of, page by page;
// an admin's session sees all.
func (c *Client) EachOrganisation(ctx context.Context, params types.ListOrganisationsParams) iter.Seq2[types.Organisation, error] {
	return each[types.Organisation](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListOrganisations(ctx, &params, e...)
	})
}

// EachMember returns the members of an organisation, page by page.
func (c *Client) EachMember(ctx context.Context, id types.OrganisationID, params types.ListMembersParams) iter.Seq2[types.Member, error] {
	return each[types.Member](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListMembers(ctx, id, &params, e...)
	})
}

// EachInvitation returns the invitations of an organisation that wait.
func (c *Client) EachInvitation(ctx context.Context, id types.OrganisationID) iter.Seq2[types.Invitation, error] {
	return each[types.Invitation](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListInvitations(ctx, id, e...)
	})
}

// EachAPIKey returns the API keys of the caller, or those that params names, without the
// keys themselves.
func (c *Client) EachAPIKey(ctx context.Context, params types.ListAPIKeysParams) iter.Seq2[types.APIKey, error] {
	return each[types.APIKey](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListAPIKeys(ctx, &params, e...)
	})
}

// EachAuditEntry returns entries of the audit trail, newest first, page by page. params
// filters them.
func (c *Client) EachAuditEntry(ctx context.Context, params types.ListAuditParams) iter.Seq2[types.AuditEntry, error] {
	return each[types.AuditEntry](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListAudit(ctx, &params, e...)
	})
}

// EachSigningKey returns the keys with which the panel signs, without their private halves,
// the one that signs last first. It and EachTunnelServerLoad need an admin's session.
func (c *Client) EachSigningKey(ctx context.Context) iter.Seq2[types.SigningKey, error] {
	return each[types.SigningKey](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListSigningKeys(ctx, e...)
	})
}

// EachTunnelServerLoad returns what each tunnel server has and carries, by ID.
func (c *Client) EachTunnelServerLoad(ctx context.Context) iter.Seq2[types.TunnelServerLoad, error] {
	return each[types.TunnelServerLoad](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListTunnelServerLoads(ctx, e...)
	})
}
