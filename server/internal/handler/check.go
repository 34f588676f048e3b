package handler

import (
	"context"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// The checks that one allocation and one caller may have in checkWindow: each connects to games and
// public ports.
const (
	checksOfAllocation = 6
	checksOfCaller     = 60
	checkWindow        = time.Minute
)

// CheckAllocation finds out whether players can join an allocation.
func (a *api) CheckAllocation(ctx context.Context, request server.CheckAllocationRequestObject) (server.CheckAllocationResponseObject, error) {
	caller := auth.FromContext(ctx)
	row, err := a.db.CheckedAllocation(ctx, caller.Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	who := caller.Account()
	if caller.Device != nil {
		who = "device:" + caller.Device.ID.String()
	}
	for _, limit := range []struct {
		key  string
		most int
	}{{"check:" + number(&request.ID), checksOfAllocation}, {"checks:" + who, checksOfCaller}} {
		attempt, err := a.db.Take(ctx, limit.key, limit.most, checkWindow, a.gate.now())
		if err != nil {
			return nil, err
		}
		if attempt.RetryAfter > 0 {
			return nil, problem.RateLimited(attempt.RetryAfter)
		}
	}
	found, err := a.checks.Check(ctx, row)
	if err != nil {
		return nil, err
	}
	return server.CheckAllocation200JSONResponse(found), nil
}
