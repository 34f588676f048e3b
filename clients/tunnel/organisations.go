package tunnel

import (
	"context"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Organisation returns an organisation that the caller is a member of, or any to an admin.
func (c *Client) Organisation(ctx context.Context, id types.OrganisationID, opts ...Option) (types.Organisation, error) {
	return fetch[types.Organisation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetOrganisation(ctx, id, e...)
	})
}

// CreateOrganisation makes an organisation. Its owner is the caller unless an admin names
// another user.
func (c *Client) CreateOrganisation(ctx context.Context, organisation types.OrganisationCreate, opts ...Option) (types.Organisation, error) {
	return createOnce[types.Organisation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateOrganisation(ctx, organisation, e...)
	})
}

// UpdateOrganisation changes the fields of patch that are not nil and returns the
// organisation as it is afterwards.
func (c *Client) UpdateOrganisation(ctx context.Context, id types.OrganisationID, patch types.OrganisationPatch, opts ...Option) (types.Organisation, error) {
	return fetch[types.Organisation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateOrganisation(ctx, id, patch, e...)
	})
}

// DeleteOrganisation deletes an organisation. It needs one of its owners.
func (c *Client) DeleteOrganisation(ctx context.Context, id types.OrganisationID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteOrganisation(ctx, id, e...)
	})
}

// Member returns a member of an organisation.
func (c *Client) Member(ctx context.Context, id types.OrganisationID, user types.MemberID, opts ...Option) (types.Member, error) {
	return fetch[types.Member](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetMember(ctx, id, user, e...)
	})
}

// UpdateMember changes the role of a member and returns the member as it is afterwards.
func (c *Client) UpdateMember(ctx context.Context, id types.OrganisationID, user types.MemberID, patch types.MemberPatch, opts ...Option) (types.Member, error) {
	return fetch[types.Member](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateMember(ctx, id, user, patch, e...)
	})
}

// RemoveMember removes a member from an organisation. Every member can remove themselves.
func (c *Client) RemoveMember(ctx context.Context, id types.OrganisationID, user types.MemberID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.RemoveMember(ctx, id, user, e...)
	})
}

// CreateInvitation makes an invitation and returns it with its token, which cannot be
// retrieved later.
func (c *Client) CreateInvitation(ctx context.Context, id types.OrganisationID, invitation types.InvitationCreate, opts ...Option) (types.InvitationCreated, error) {
	return createOnce[types.InvitationCreated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateInvitation(ctx, id, invitation, e...)
	})
}

// RevokeInvitation makes an invitation invalid.
func (c *Client) RevokeInvitation(ctx context.Context, id types.OrganisationID, invitation types.InvitationID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.RevokeInvitation(ctx, id, invitation, e...)
	})
}

// LookUpInvitation returns what an invitation invites to. It needs no token of the client.
func (c *Client) LookUpInvitation(ctx context.Context, token types.InvitationToken, opts ...Option) (types.InvitationDetail, error) {
	return fetch[types.InvitationDetail](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.LookUpInvitation(ctx, token, e...)
	})
}

// AcceptInvitation makes the caller a member of the organisation, and returns that.
func (c *Client) AcceptInvitation(ctx context.Context, token types.InvitationToken, opts ...Option) (types.Organisation, error) {
	return createOnce[types.Organisation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.AcceptInvitation(ctx, token, e...)
	})
}

// OrganisationRules returns the rules for the allocations of an organisation's devices.
func (c *Client) OrganisationRules(ctx context.Context, id types.OrganisationID, opts ...Option) (types.RuleLimits, error) {
	return fetch[types.RuleLimits](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetOrganisationRules(ctx, id, e...)
	})
}

// UpdateOrganisationRules changes the rules that are given and returns all. One that is
// null is the panel's.
func (c *Client) UpdateOrganisationRules(ctx context.Context, id types.OrganisationID, rules types.RuleLimits, opts ...Option) (types.RuleLimits, error) {
	return fetch[types.RuleLimits](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateOrganisationRules(ctx, id, rules, e...)
	})
}

// OrganisationQuota returns the limits of an organisation, each with what is used.
func (c *Client) OrganisationQuota(ctx context.Context, id types.OrganisationID, opts ...Option) (types.Quota, error) {
	return fetch[types.Quota](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetOrganisationQuota(ctx, id, e...)
	})
}

// UpdateOrganisationQuota changes the limits that are given and returns all. It needs an
// admin's session.
func (c *Client) UpdateOrganisationQuota(ctx context.Context, id types.OrganisationID, limits types.QuotaLimits, opts ...Option) (types.Quota, error) {
	return fetch[types.Quota](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateOrganisationQuota(ctx, id, limits, e...)
	})
}

// DrainDevice has a tunnel server take no new allocations, and moves those that it has to
// others; see the contract for what drain says. It needs an admin's session.
func (c *Client) DrainDevice(ctx context.Context, id types.DeviceID, drain types.DeviceDrain, opts ...Option) (types.Device, error) {
	return createOnce[types.Device](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DrainDevice(ctx, id, drain, e...)
	})
}

// PublicKeys returns the keys that verify device tokens and tickets (RFC 7517). It needs no
// token.
func (c *Client) PublicKeys(ctx context.Context, opts ...Option) (types.JWKS, error) {
	return fetch[types.JWKS](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetJWKS(ctx, e...)
	})
}

// Alive returns nil while the panel's process runs. It needs no token; see [Client.Ready]
// for whether it can serve requests.
func (c *Client) Alive(ctx context.Context, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetHealth(ctx, e...)
	})
}
