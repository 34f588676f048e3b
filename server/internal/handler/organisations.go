package handler

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var (
	errNoOrganisation = problem.NotFound("There is no such organisation.")
	errNoMember       = problem.NotFound("The organisation has no such member.")
	errNoInvitation   = problem.NotFound("The organisation has no such invitation.")
)

// ListOrganisations lists the organisations of the caller, or all for an admin.
func (a *api) ListOrganisations(ctx context.Context, request server.ListOrganisationsRequestObject) (server.ListOrganisationsResponseObject, error) {
	params := request.Params
	wanted := valueOr(params.Limit, types.DefaultLimit)
	rows, err := a.organisations(ctx, params)
	if err != nil {
		return nil, err
	}
	sort := valueOr(params.Sort, types.OrganisationsByName)
	parameters := given(nil, "search", params.Search)
	parameters = given(parameters, "q", params.Q)
	parameters = given(parameters, "sort", params.Sort)
	rows, link := cut(rows, wanted, "/api/organisations", func(row db.Organisation) string { return organisationCursor(sort, row) }, parameters...)
	organisations := make([]types.Organisation, 0, len(rows))
	for _, row := range rows {
		organisations = append(organisations, toOrganisation(row))
	}
	return server.ListOrganisations200JSONResponse{Body: organisations, Headers: server.ListOrganisations200ResponseHeaders{Link: link}}, nil
}

// organisations reads a page of organisations, with one more that tells whether there is a next one.
func (a *api) organisations(ctx context.Context, params types.ListOrganisationsParams) ([]db.Organisation, error) {
	scope, sort := auth.FromContext(ctx).Scope(), valueOr(params.Sort, types.OrganisationsByName)
	listing := db.Listing{Sort: toSort(sort)}
	if sort == types.OrganisationsByName {
		after, err := organisationPosition(params.After)
		if err != nil {
			return nil, err
		}
		_, page := page(params.Limit, after)
		if params.Q == nil {
			return a.db.Organisations(ctx, scope, textOf(params.Search), page)
		}
		if after != nil {
			listing.After = &db.Position{Key: after.Name, ID: strconv.FormatInt(after.ID, 10)}
		}
	} else {
		var err error
		if listing.After, err = sortPosition(sort, isNumber, params.After); err != nil {
			return nil, err
		}
	}
	_, page := page[db.Position](params.Limit, nil)
	listing.Limit = page.Limit
	return a.db.FindOrganisations(ctx, scope, db.OrganisationFilter{Beginning: textOf(params.Search), Search: textOf(params.Q)}, listing)
}

// organisationCursor encodes the position of an organisation in a list.
func organisationCursor(sort types.OrganisationSort, row db.Organisation) string {
	position := db.Position{Key: timeKey(row.CreatedAt), ID: strconv.FormatInt(row.ID, 10)}
	switch sort {
	case types.OrganisationsByName:
		return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%s", row.ID, row.Name))
	case types.OrganisationsDescendingByName:
		position.Key = row.Name
	}
	return sortCursor(sort, position)
}

// organisationPosition returns the position that the parameter `after` names, or nil without
// one.
func organisationPosition(after *string) (*db.OrganisationPosition, error) {
	text, err := textPosition(after)
	if text == nil || err != nil {
		return nil, err
	}
	number, name, found := strings.Cut(*text, ":")
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !found {
		return nil, errNoPosition
	}
	return &db.OrganisationPosition{Name: name, ID: id}, nil
}

// CreateOrganisation creates an organisation of the caller, or of a user whom an admin names.
func (a *api) CreateOrganisation(ctx context.Context, request server.CreateOrganisationRequestObject) (server.CreateOrganisationResponseObject, error) {
	caller := auth.FromContext(ctx)
	if !caller.May("createOrganisation", auth.ByAdmins) {
		settings, err := a.db.Settings(ctx)
		switch {
		case err != nil:
			return nil, err
		case settings.OrganisationCreators != db.CreatorsEveryone:
			return nil, problem.Forbidden("Only an admin can create organisations on this panel.")
		case request.Body.OwnerID != nil && !caller.May("createOrganisation", auth.AnotherOwner):
			return nil, problem.Forbidden("Only an admin can name another owner.")
		}
	}
	name, err := organisationName(request.Body.Name)
	if err != nil {
		return nil, err
	}
	owner := valueOr(request.Body.OwnerID, caller.User.ID)
	row, err := a.db.CreateOrganisation(ctx, name, owner, !caller.IsAdmin())
	switch {
	case errors.Is(err, db.ErrNoOwner):
		return nil, problem.Invalid(problem.Field("ownerId", "is not a user of this panel"))
	case errors.Is(err, db.ErrTooMany):
		return nil, problem.Conflict(fmt.Sprintf("You own %d organisations, as many as a user can create.", db.MaxOwned))
	case err != nil:
		return nil, err
	}
	organisation := toOrganisation(row)
	if owner == caller.User.ID {
		organisation.Role = nullable.NewNullableWithValue(db.RoleOwner)
	}
	return server.CreateOrganisation201JSONResponse(organisation), nil
}

// organisationName returns a name without white space around it. The contract's pattern does
// not cover all Unicode spaces.
func organisationName(name string) (string, error) {
	if name = strings.TrimSpace(name); name == "" {
		return "", problem.Invalid(problem.Field("name", "is blank"))
	}
	return name, nil
}

// GetOrganisation returns one organisation.
func (a *api) GetOrganisation(ctx context.Context, request server.GetOrganisationRequestObject) (server.GetOrganisationResponseObject, error) {
	row, err := a.db.Organisation(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, organisationTag(row))
	return server.GetOrganisation200JSONResponse(toOrganisation(row)), nil
}

// UpdateOrganisation renames an organisation.
func (a *api) UpdateOrganisation(ctx context.Context, request server.UpdateOrganisationRequestObject) (server.UpdateOrganisationResponseObject, error) {
	name, err := organisationName(*request.Body.Name)
	if err != nil {
		return nil, err
	}
	row, err := a.db.RenameOrganisation(ifMatch(ctx, organisationTag), auth.FromContext(ctx).Scope(), request.ID, name)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, organisationTag(row))
	return server.UpdateOrganisation200JSONResponse(toOrganisation(row)), nil
}

// DeleteOrganisation deletes an organisation that has no devices.
func (a *api) DeleteOrganisation(ctx context.Context, request server.DeleteOrganisationRequestObject) (server.DeleteOrganisationResponseObject, error) {
	err := a.db.DeleteOrganisation(ifMatch(ctx, organisationTag), auth.FromContext(ctx).Scope(), request.ID)
	switch {
	case errors.Is(err, db.ErrOwnsDevices):
		return nil, problem.Conflict("The organisation has devices; delete them or give them to another owner first.")
	case err != nil:
		return nil, ifNotFound(err, errNoOrganisation)
	}
	return server.DeleteOrganisation200JSONResponse(types.Success{Success: true}), nil
}

// ListMembers lists the members of an organisation.
func (a *api) ListMembers(ctx context.Context, request server.ListMembersRequestObject) (server.ListMembersResponseObject, error) {
	wanted, page := page(request.Params.Limit, request.Params.After)
	rows, err := a.db.Members(ctx, auth.FromContext(ctx).Scope(), request.ID, page)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	rows, link := cut(rows, wanted, fmt.Sprintf("/api/organisations/%d/members", request.ID), func(row db.Member) string {
		return strconv.FormatInt(row.UserID, 10)
	})
	members := make([]types.Member, 0, len(rows))
	for _, row := range rows {
		members = append(members, toMember(row))
	}
	return server.ListMembers200JSONResponse{Body: members, Headers: server.ListMembers200ResponseHeaders{Link: link}}, nil
}

// GetMember returns a member of an organisation.
func (a *api) GetMember(ctx context.Context, request server.GetMemberRequestObject) (server.GetMemberResponseObject, error) {
	row, err := a.db.Member(ctx, auth.FromContext(ctx).Scope(), request.ID, request.UserID)
	if err != nil {
		return nil, noMember(err)
	}
	setTag(ctx, memberTag(row))
	return server.GetMember200JSONResponse(toMember(row)), nil
}

// UpdateMember changes the role of a member.
func (a *api) UpdateMember(ctx context.Context, request server.UpdateMemberRequestObject) (server.UpdateMemberResponseObject, error) {
	row, err := a.db.UpdateMember(ifMatch(ctx, memberTag), auth.FromContext(ctx).Scope(), request.ID, request.UserID, string(request.Body.Role))
	if err != nil {
		return nil, noMember(err)
	}
	setTag(ctx, memberTag(row))
	return server.UpdateMember200JSONResponse(toMember(row)), nil
}

// RemoveMember ends a membership.
func (a *api) RemoveMember(ctx context.Context, request server.RemoveMemberRequestObject) (server.RemoveMemberResponseObject, error) {
	if err := a.db.RemoveMember(ifMatch(ctx, memberTag), auth.FromContext(ctx).Scope(), request.ID, request.UserID); err != nil {
		return nil, noMember(err)
	}
	return server.RemoveMember200JSONResponse(types.Success{Success: true}), nil
}

// noMember says what does not exist: the member, or the organisation.
func noMember(err error) error {
	if errors.Is(err, db.ErrNoMember) {
		return errNoMember
	}
	return ifNotFound(err, errNoOrganisation)
}

func toOrganisation(row db.Organisation) types.Organisation {
	return types.Organisation{ID: row.ID, Name: row.Name, CreatedAt: row.CreatedAt, Role: orNull(row.Role)}
}

func toMember(row db.Member) types.Member {
	return types.Member{UserID: row.UserID, Email: row.Email, Role: types.OrganisationRole(row.Role)}
}
