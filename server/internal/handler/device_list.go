package handler

import (
	"context"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// findDevices lists the devices that match a filter, in any order.
func (a *api) findDevices(ctx context.Context, scope db.Scope, filter db.DeviceFilter, sort types.DeviceSort, params types.ListDevicesParams) ([]db.Device, error) {
	listing := db.Listing{Sort: toSort(sort)}
	var err error
	if listing.Sort.By == "createdAt" {
		var after *db.DevicePosition
		after, err = a.devicePosition(ctx, scope, params.After)
		if after != nil {
			listing.After = &db.Position{Key: timeKey(after.CreatedAt), ID: after.ID.String()}
		}
	} else {
		listing.After, err = sortPosition(sort, isUUID, params.After)
	}
	if err != nil {
		return nil, err
	}
	_, page := page[db.Position](params.Limit, nil)
	listing.Limit = page.Limit
	return a.db.FindDevices(ctx, scope, filter, listing)
}

// deviceFilter returns the filter of a list, and the parameters that its next page has.
func deviceFilter(params types.ListDevicesParams) (filter db.DeviceFilter, parameters []string) {
	filter = db.DeviceFilter{
		Owner:    db.OwnerFilter{UserID: params.OwnerID, OrganisationID: params.OrganisationID},
		Kind:     textOf(params.Kind),
		Online:   params.Online,
		Approved: params.Approved,
		Search:   textOf(params.Q),
	}
	parameters = given(parameters, "q", params.Q)
	parameters = given(parameters, "kind", params.Kind)
	parameters = given(parameters, "online", params.Online)
	parameters = given(parameters, "approved", params.Approved)
	parameters = given(parameters, "ownerId", params.OwnerID)
	parameters = given(parameters, "organisationId", params.OrganisationID)
	return filter, given(parameters, "sort", params.Sort)
}

// deviceCursor encodes the position of a device in a list.
func deviceCursor(sort types.DeviceSort, row db.Device) string {
	position := db.Position{ID: row.ID.String()}
	switch toSort(sort).By {
	case "createdAt":
		return cursor(db.DevicePosition{CreatedAt: row.CreatedAt, ID: row.ID})
	case "name":
		position.Key = row.Name
	default:
		switch {
		case row.Online:
			position.Key = seenNow
		case row.LastSeenAt == nil:
			position.Key = seenNever
		default:
			position.Key = timeKey(*row.LastSeenAt)
		}
	}
	return sortCursor(sort, position)
}
