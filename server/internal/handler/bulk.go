package handler

import (
	"context"
	"errors"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// BulkAllocations pauses, resumes or deletes many allocations.
func (a *api) BulkAllocations(ctx context.Context, request server.BulkAllocationsRequestObject) (server.BulkAllocationsResponseObject, error) {
	refused, err := a.db.BulkAllocations(ctx, auth.FromContext(ctx).Scope(), db.BulkAction(request.Body.Action), request.Body.Ids)
	if err != nil {
		return nil, err
	}
	results := make([]types.BulkResult, 0, len(request.Body.Ids))
	for _, id := range request.Body.Ids {
		result := types.BulkResult{ID: id, Ok: true}
		if err := refused[id]; err != nil {
			code, message := types.CodeNotFound, errNoAllocation.Message
			if errors.Is(err, db.ErrForbidden) {
				code, message = types.CodeForbidden, "Only who manages the device can change its allocations."
			}
			result = types.BulkResult{ID: id, Error: &code, Message: &message}
		}
		results = append(results, result)
	}
	return server.BulkAllocations200JSONResponse{Results: results}, nil
}
