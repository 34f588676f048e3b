package handler

import (
	"context"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const allocationsPath = "/api/tunnel/allocations"

// ListAllocations lists the allocations of devices that the caller sees.
func (a *api) ListAllocations(ctx context.Context, request server.ListAllocationsRequestObject) (server.ListAllocationsResponseObject, error) {
	scope, params := auth.FromContext(ctx).Scope(), request.Params
	wanted, page := page(params.Limit, params.After)
	sort := valueOr(params.Sort, types.AllocationsDescendingByID)
	filter, parameters := allocationFilter(params)
	after, err := allocationPosition(sort, params)
	if err != nil {
		return nil, err
	}
	var rows []db.Allocation
	if filter.IsZero() && sort == types.AllocationsDescendingByID {
		rows, err = a.db.Allocations(ctx, scope, page)
	} else {
		rows, err = a.db.FindAllocations(ctx, scope, filter, db.Listing{Sort: toSort(sort), After: after, Limit: page.Limit})
	}
	if err != nil {
		return nil, err
	}
	position, cursor := "after", func(row db.Allocation) string { return strconv.FormatInt(row.ID, 10) }
	if !byID(sort) {
		position, cursor = "cursor", func(row db.Allocation) string { return sortCursor(sort, allocationKey(sort, row)) }
	}
	rows, link := cutAs(rows, wanted, allocationsPath, position, cursor, parameters...)
	return server.ListAllocations200JSONResponse{
		Body:    toAllocations(rows),
		Headers: server.ListAllocations200ResponseHeaders{Link: link},
	}, nil
}

// allocationFilter returns the filter of a list, and the parameters that its next page has.
func allocationFilter(params types.ListAllocationsParams) (filter db.AllocationFilter, parameters []string) {
	filter = db.AllocationFilter{
		Owner:    db.OwnerFilter{UserID: params.OwnerID, OrganisationID: params.OrganisationID},
		DeviceID: params.DeviceID,
		ServerID: params.ServerID,
		Protocol: textOf(params.Protocol),
		Port:     params.Port,
		Status:   textOf(params.Status),
		Target:   textOf(params.Target),
		Search:   textOf(params.Q),
		Labels:   labelFilters(params.Label),
	}
	for _, label := range valueOr(params.Label, nil) {
		parameters = append(parameters, "label", label)
	}
	parameters = given(parameters, "q", params.Q)
	parameters = given(parameters, "deviceId", params.DeviceID)
	parameters = given(parameters, "serverId", params.ServerID)
	parameters = given(parameters, "ownerId", params.OwnerID)
	parameters = given(parameters, "organisationId", params.OrganisationID)
	parameters = given(parameters, "protocol", params.Protocol)
	parameters = given(parameters, "port", params.Port)
	parameters = given(parameters, "status", params.Status)
	parameters = given(parameters, "target", params.Target)
	return filter, given(parameters, "sort", params.Sort)
}

func byID(sort types.AllocationSort) bool {
	return sort == types.AllocationsByID || sort == types.AllocationsDescendingByID
}

// allocationPosition returns the position after which a page begins: an id in a list that is sorted by it, otherwise a
// cursor.
func allocationPosition(sort types.AllocationSort, params types.ListAllocationsParams) (*db.Position, error) {
	switch {
	case byID(sort) && params.Cursor != nil:
		return nil, problem.Invalid(problem.Field("cursor", "is for lists that are not sorted by id; use after"))
	case !byID(sort) && params.After != nil:
		return nil, problem.Invalid(problem.Field("after", "is for lists that are sorted by id; use the URL in the Link header"))
	case params.After != nil:
		id := strconv.FormatInt(*params.After, 10)
		return &db.Position{Key: id, ID: id}, nil
	}
	position, err := sortPosition(sort, isNumber, params.Cursor)
	if err != nil {
		return nil, problem.Invalid(problem.Field("cursor", "is not a position in this list; use the URL in the Link header"))
	}
	return position, nil
}

func allocationKey(sort types.AllocationSort, row db.Allocation) db.Position {
	position := db.Position{ID: strconv.FormatInt(row.ID, 10)}
	switch toSort(sort).By {
	case "name":
		position.Key = row.Name
	case "port":
		position.Key = strconv.Itoa(row.Port)
	default:
		position.Key = timeKey(row.CreatedAt)
	}
	return position
}
