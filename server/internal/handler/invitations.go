package handler

import (
	"context"
	"errors"
	"fmt"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// ListInvitations lists the open invitations to an organisation.
func (a *api) ListInvitations(ctx context.Context, request server.ListInvitationsRequestObject) (server.ListInvitationsResponseObject, error) {
	rows, err := a.auth.Invitations(ctx, request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	invitations := make([]types.Invitation, 0, len(rows))
	for _, row := range rows {
		invitations = append(invitations, toInvitation(row))
	}
	return server.ListInvitations200JSONResponse(invitations), nil
}

// CreateInvitation makes a link with which somebody becomes a member.
func (a *api) CreateInvitation(ctx context.Context, request server.CreateInvitationRequestObject) (server.CreateInvitationResponseObject, error) {
	var email *string
	if request.Body.Email != nil {
		text := string(*request.Body.Email)
		email = &text
	}
	invitation, err := a.auth.NewInvitation(ctx, request.ID, string(request.Body.Role), email)
	switch {
	case errors.Is(err, db.ErrTooMany):
		return nil, problem.Conflict(fmt.Sprintf("The organisation has %d open invitations; revoke some first.", db.MaxInvitations))
	case err != nil:
		return nil, ifNotFound(err, errNoOrganisation)
	}
	created := toInvitation(invitation.Invitation)
	return server.CreateInvitation201JSONResponse(types.InvitationCreated{
		ID: created.ID, Role: created.Role, Email: created.Email, InvitedBy: created.InvitedBy,
		CreatedAt: created.CreatedAt, ExpiresAt: created.ExpiresAt, URL: invitation.URL.String(),
	}), nil
}

// RevokeInvitation ends an invitation.
func (a *api) RevokeInvitation(ctx context.Context, request server.RevokeInvitationRequestObject) (server.RevokeInvitationResponseObject, error) {
	err := a.db.DeleteInvitation(ctx, auth.FromContext(ctx).Scope(), request.ID, request.InvitationID)
	switch {
	case errors.Is(err, db.ErrNoInvitation):
		return nil, errNoInvitation
	case err != nil:
		return nil, ifNotFound(err, errNoOrganisation)
	}
	return server.RevokeInvitation200JSONResponse(types.Success{Success: true}), nil
}

// LookUpInvitation returns what an invitation is for.
func (a *api) LookUpInvitation(ctx context.Context, request server.LookUpInvitationRequestObject) (server.LookUpInvitationResponseObject, error) {
	row, err := a.auth.LookUpInvitation(ctx, request.Body.Token)
	if err != nil {
		return nil, err
	}
	return server.LookUpInvitation200JSONResponse(types.InvitationDetail{
		Organisation: row.OrganisationName, Role: types.OrganisationRole(row.Role), ExpiresAt: row.ExpiresAt,
	}), nil
}

// AcceptInvitation makes the caller a member by an invitation.
func (a *api) AcceptInvitation(ctx context.Context, request server.AcceptInvitationRequestObject) (server.AcceptInvitationResponseObject, error) {
	row, err := a.auth.AcceptInvitation(ctx, request.Body.Token)
	if err != nil {
		return nil, err
	}
	return server.AcceptInvitation200JSONResponse(toOrganisation(row)), nil
}

func toInvitation(row db.Invitation) types.Invitation {
	return types.Invitation{
		ID: row.ID, Role: types.OrganisationRole(row.Role), Email: orNull(row.Email), InvitedBy: orNull(row.InvitedBy),
		CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt,
	}
}
