package handler

import (
	"context"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// ListSigningKeys lists the keys with which the panel signs.
func (a *api) ListSigningKeys(ctx context.Context, _ server.ListSigningKeysRequestObject) (server.ListSigningKeysResponseObject, error) {
	rows, err := a.db.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	states := auth.KeyStates(rows, a.gate.now())
	keys := make(server.ListSigningKeys200JSONResponse, 0, len(rows))
	for i, row := range rows {
		keys = append(keys, types.SigningKey{
			ID: row.ID, State: states[i], CreatedAt: row.CreatedAt, SignsFrom: row.SignsFrom, RetiredAt: orNull(row.RetiredAt),
		})
	}
	return keys, nil
}

// ListTunnelServerLoads lists what each tunnel server has and carries.
func (a *api) ListTunnelServerLoads(ctx context.Context, _ server.ListTunnelServerLoadsRequestObject) (server.ListTunnelServerLoadsResponseObject, error) {
	rows, err := a.db.ServerLoads(ctx)
	if err != nil {
		return nil, err
	}
	loads := make(server.ListTunnelServerLoads200JSONResponse, 0, len(rows))
	for _, row := range rows {
		load := types.TunnelServerLoad{
			DeviceID: row.ServerID, Allocations: row.Allocations, Clients: row.Clients, Closing: row.Closing,
			DownloadBytesPerSecond: row.DownloadRate, UploadBytesPerSecond: row.UploadRate,
			Drain: nullable.NewNullNullable[types.TunnelServerDrain](),
		}
		if row.DrainUntil != nil {
			load.Drain.Set(types.TunnelServerDrain{
				Until: *row.DrainUntil, Move: row.DrainMove, Allocations: row.DrainTotal, Remaining: row.DrainLeft,
			})
		}
		loads = append(loads, load)
	}
	return loads, nil
}
