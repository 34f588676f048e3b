package handler

import (
	"context"
	"encoding/json"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// GetAccountQuota returns the caller's quota.
func (a *api) GetAccountQuota(ctx context.Context, _ server.GetAccountQuotaRequestObject) (server.GetAccountQuotaResponseObject, error) {
	quota, err := a.db.UserQuota(ctx, auth.FromContext(ctx).User.ID)
	return server.GetAccountQuota200JSONResponse(toQuota(quota)), err
}

// GetUserQuota returns a user's quota.
func (a *api) GetUserQuota(ctx context.Context, request server.GetUserQuotaRequestObject) (server.GetUserQuotaResponseObject, error) {
	quota, err := a.db.UserQuota(ctx, request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoUser)
	}
	setTag(ctx, quotaTag(quota))
	return server.GetUserQuota200JSONResponse(toQuota(quota)), nil
}

// UpdateUserQuota changes the limits that the request contains.
func (a *api) UpdateUserQuota(ctx context.Context, request server.UpdateUserQuotaRequestObject) (server.UpdateUserQuotaResponseObject, error) {
	patch, err := quotaPatch(*request.Body)
	if err != nil {
		return nil, err
	}
	quota, err := a.db.UpdateUserQuota(ifMatch(ctx, quotaTag), request.ID, patch)
	if err != nil {
		return nil, ifNotFound(err, errNoUser)
	}
	setTag(ctx, quotaTag(quota))
	return server.UpdateUserQuota200JSONResponse(toQuota(quota)), nil
}

// GetOrganisationQuota returns the quota of an organisation that the caller sees.
func (a *api) GetOrganisationQuota(ctx context.Context, request server.GetOrganisationQuotaRequestObject) (server.GetOrganisationQuotaResponseObject, error) {
	quota, err := a.db.OrganisationQuota(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, quotaTag(quota))
	return server.GetOrganisationQuota200JSONResponse(toQuota(quota)), nil
}

// UpdateOrganisationQuota changes the limits that the request contains.
func (a *api) UpdateOrganisationQuota(ctx context.Context, request server.UpdateOrganisationQuotaRequestObject) (server.UpdateOrganisationQuotaResponseObject, error) {
	patch, err := quotaPatch(*request.Body)
	if err != nil {
		return nil, err
	}
	quota, err := a.db.UpdateOrganisationQuota(ifMatch(ctx, quotaTag), request.ID, patch)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, quotaTag(quota))
	return server.UpdateOrganisationQuota200JSONResponse(toQuota(quota)), nil
}

// quotaPatch returns what a request changes of a quota.
func quotaPatch(limits types.QuotaLimits) (db.QuotaPatch, error) {
	text, err := json.Marshal(limits)
	return db.QuotaPatch(text), err
}

func toQuotaLimits(quota db.Quota) types.QuotaLimits {
	return types.QuotaLimits{
		Devices: orNull(quota.Devices), Allocations: orNull(quota.Allocations), PortsOutsideRange: orNull(quota.PortsOutsideRange),
	}
}

func toQuota(quota db.OwnerQuota) types.Quota {
	use := func(limit, own *int, used int) types.QuotaUse {
		return types.QuotaUse{Limit: orNull(limit), Own: orNull(own), Used: used}
	}
	return types.Quota{
		Devices:           use(quota.Limits.Devices, quota.Own.Devices, quota.Devices),
		Allocations:       use(quota.Limits.Allocations, quota.Own.Allocations, quota.Allocations),
		PortsOutsideRange: use(quota.Limits.PortsOutsideRange, quota.Own.PortsOutsideRange, quota.PortsOutsideRange),
	}
}
