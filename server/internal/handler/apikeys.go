package handler

import (
	"context"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var errNoAPIKey = problem.NotFound("There is no such API key.")

// ListAPIKeys lists the keys of the caller, or of whom the caller manages.
func (a *api) ListAPIKeys(ctx context.Context, request server.ListAPIKeysRequestObject) (server.ListAPIKeysResponseObject, error) {
	caller := auth.FromContext(ctx)
	owner := db.APIKeyOwner{UserID: request.Params.UserID, OrganisationID: request.Params.OrganisationID}
	absent := errNoUser
	switch {
	case owner.UserID != nil && owner.OrganisationID != nil:
		return nil, problem.Invalid(problem.Field("organisationId", "cannot be combined with userId"))
	case owner.OrganisationID != nil:
		absent = errNoOrganisation
	case owner.UserID == nil:
		owner.UserID = &caller.User.ID
	}
	rows, err := a.db.APIKeys(ctx, caller.Scope(), owner)
	if err != nil {
		return nil, ifNotFound(err, absent)
	}
	keys := make(server.ListAPIKeys200JSONResponse, 0, len(rows))
	for _, row := range rows {
		keys = append(keys, toAPIKey(row))
	}
	return keys, nil
}

// CreateAPIKey makes a key of the caller, or of an organisation that the caller manages.
func (a *api) CreateAPIKey(ctx context.Context, request server.CreateAPIKeyRequestObject) (server.CreateAPIKeyResponseObject, error) {
	caller, create := auth.FromContext(ctx), request.Body
	if err := a.checkAPIKey(caller, *create); err != nil {
		return nil, err
	}
	key := db.APIKey{
		Name:      strings.TrimSpace(create.Name),
		Scopes:    auth.ParseScopes(create.Scopes).Names(),
		ExpiresAt: create.ExpiresAt,
	}
	if key.OrganisationID = create.OrganisationID; key.OrganisationID == nil {
		key.UserID = &caller.User.ID
	}
	text, row, err := a.auth.NewAPIKey(ctx, caller.Scope(), key)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	return server.CreateAPIKey201JSONResponse(toAPIKeyCreated(row, text)), nil
}

// checkAPIKey checks what the contract cannot express.
func (a *api) checkAPIKey(caller auth.Principal, create types.APIKeyCreate) error {
	switch {
	case strings.TrimSpace(create.Name) == "":
		return problem.Invalid(problem.Field("name", "is blank"))
	case create.ExpiresAt != nil && !a.gate.now().Before(*create.ExpiresAt):
		return problem.Invalid(problem.Field("expiresAt", "is past"))
	case !slices.Contains(create.Scopes, types.ScopeAdmin):
		return nil
	case !caller.May("createAPIKey", auth.AdminKey):
		return problem.Forbidden("Only an admin can create a key with the scope admin.")
	case create.OrganisationID != nil:
		return problem.Invalid(problem.Field("scopes", "cannot have admin: an organisation's key acts as an admin of the organisation only"))
	}
	return nil
}

// GetAPIKey returns a key.
func (a *api) GetAPIKey(ctx context.Context, request server.GetAPIKeyRequestObject) (server.GetAPIKeyResponseObject, error) {
	key, err := a.db.APIKey(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoAPIKey)
	}
	setTag(ctx, apiKeyTag(key))
	return server.GetAPIKey200JSONResponse(toAPIKey(key)), nil
}

// UpdateAPIKey renames a key.
func (a *api) UpdateAPIKey(ctx context.Context, request server.UpdateAPIKeyRequestObject) (server.UpdateAPIKeyResponseObject, error) {
	name := strings.TrimSpace(request.Body.Name)
	if name == "" {
		return nil, problem.Invalid(problem.Field("name", "is blank"))
	}
	key, err := a.db.UpdateAPIKey(ifMatch(ctx, apiKeyTag), auth.FromContext(ctx).Scope(), request.ID, name)
	if err != nil {
		return nil, ifNotFound(err, errNoAPIKey)
	}
	setTag(ctx, apiKeyTag(key))
	return server.UpdateAPIKey200JSONResponse(toAPIKey(key)), nil
}

// DeleteAPIKey revokes a key.
func (a *api) DeleteAPIKey(ctx context.Context, request server.DeleteAPIKeyRequestObject) (server.DeleteAPIKeyResponseObject, error) {
	if err := a.db.DeleteAPIKey(ifMatch(ctx, apiKeyTag), auth.FromContext(ctx).Scope(), request.ID); err != nil {
		return nil, ifNotFound(err, errNoAPIKey)
	}
	return server.DeleteAPIKey200JSONResponse(types.Success{Success: true}), nil
}

func toAPIKey(row db.APIKey) types.APIKey {
	return types.APIKey{
		ID:             row.ID,
		Name:           row.Name,
		Prefix:         row.Prefix,
		Scopes:         toScopes(row.Scopes),
		UserID:         orNull(row.UserID),
		OrganisationID: orNull(row.OrganisationID),
		CreatedAt:      row.CreatedAt,
		ExpiresAt:      orNull(row.ExpiresAt),
		LastUsedAt:     orNull(row.LastUsedAt),
		LastUsedFrom:   orNull(row.LastUsedFrom),
	}
}
