package handler

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// maxUsagePoints bounds the points of an answer.
	maxUsagePoints = 20_000
	// minutesUpTo and hoursUpTo are the longest times whose usage is by minute or hour where
	// the caller does not say.
	minutesUpTo = 6 * time.Hour
	hoursUpTo   = 14 * 24 * time.Hour
	// maxUsageSpan bounds the time that is asked for: what is kept for longest is kept for
	// ten years.
	maxUsageSpan = 11 * 366 * 24 * time.Hour
)

// GetUsage returns the usage that belongs to the caller, or to others in its scope.
func (a *api) GetUsage(ctx context.Context, request server.GetUsageRequestObject) (server.GetUsageResponseObject, error) {
	query, err := usageQuery(request.Params, a.gate.now())
	if err != nil {
		return nil, err
	}
	rows, err := a.db.Usage(ctx, auth.FromContext(ctx).Scope(), query)
	if err != nil {
		return nil, err
	}
	if len(rows) > maxUsagePoints {
		return nil, tooManyPoints(query.Resolution)
	}
	return server.GetUsage200JSONResponse(types.Usage{
		By: types.UsageGrouping(query.By), Resolution: types.UsageResolution(query.Resolution),
		From: query.From, To: query.To, Series: toUsageSeries(rows),
	}), nil
}

func usageQuery(params types.GetUsageParams, now time.Time) (db.UsageQuery, error) {
	to := valueOr(params.To, now).UTC()
	from := valueOr(params.From, to.Add(-24*time.Hour)).UTC()
	span := to.Sub(from)
	switch {
	case span <= 0:
		return db.UsageQuery{}, problem.Invalid(problem.Field("from", "must be before to"))
	case span > maxUsageSpan:
		return db.UsageQuery{}, problem.Invalid(problem.Field("from", "must be at most eleven years before to"))
	}
	resolution := db.UsageDays
	switch {
	case params.Resolution != nil:
		resolution = db.UsageResolution(*params.Resolution)
	case span <= minutesUpTo:
		resolution = db.UsageMinutes
	case span <= hoursUpTo:
		resolution = db.UsageHours
	}
	return db.UsageQuery{
		By: db.UsageGrouping(valueOr(params.By, types.UsageGroupingNone)), Resolution: resolution,
		From: from.Truncate(resolution.Length()), To: to,
		AllocationID: valueOr(params.AllocationID, 0), DeviceID: valueOr(params.DeviceID, uuid.Nil),
		UserID: valueOr(params.OwnerID, 0), OrganisationID: valueOr(params.OrganisationID, 0),
		Limit: maxUsagePoints + 1,
	}, nil
}

// tooManyPoints says what to ask for instead.
func tooManyPoints(resolution db.UsageResolution) error {
	coarser := map[db.UsageResolution]db.UsageResolution{db.UsageMinutes: db.UsageHours, db.UsageHours: db.UsageDays}
	if next, ok := coarser[resolution]; ok {
		return problem.Invalid(problem.Field("resolution", fmt.Sprintf("would return more than %d points; use %s, fewer allocations or a shorter range", maxUsagePoints, next)))
	}
	return problem.Invalid(problem.Field("from", fmt.Sprintf("would return more than %d points; use a shorter range or fewer allocations", maxUsagePoints)))
}

// toUsageSeries makes series of rows, which are sorted by group.
func toUsageSeries(rows []db.UsageRow) []types.UsageSeries {
	list := []types.UsageSeries{}
	for i, row := range rows {
		if i == 0 || !sameGroup(rows[i-1], row) {
			list = append(list, types.UsageSeries{
				AllocationID: orNull(row.AllocationID), DeviceID: orNull(row.DeviceID),
				UserID: orNull(row.OwnerID), OrganisationID: orNull(row.OrganisationID),
				Points: []types.UsagePoint{},
			})
		}
		series := &list[len(list)-1]
		series.Points = append(series.Points, types.UsagePoint{
			At: row.At.UTC(), DownloadBytes: row.DownloadBytes, UploadBytes: row.UploadBytes,
			DownloadDatagrams: row.DownloadDatagrams, UploadDatagrams: row.UploadDatagrams,
			Joins: row.Joins, PeakPlayers: row.PeakPlayers,
		})
		t := &series.Totals
		t.DownloadBytes += row.DownloadBytes
		t.UploadBytes += row.UploadBytes
		t.DownloadDatagrams += row.DownloadDatagrams
		t.UploadDatagrams += row.UploadDatagrams
		t.Joins += row.Joins
		t.PeakPlayers = max(t.PeakPlayers, row.PeakPlayers)
	}
	return list
}

func sameGroup(a, b db.UsageRow) bool {
	return same(a.AllocationID, b.AllocationID) && same(a.DeviceID, b.DeviceID) &&
		same(a.OwnerID, b.OwnerID) && same(a.OrganisationID, b.OrganisationID)
}

func same[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
